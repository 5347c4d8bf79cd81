"""Agreement of two folders of part labels, against counting by hand."""

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.part_label_agreement import confusion, intersection_over_union, main


def _write(file: Path, rows: list[list[int]]) -> None:
  file.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.array(rows, np.uint8)).save(file)


def test_agreement_is_over_the_pixels_of_images_in_both(tmp_path, capsys):
  first, second = tmp_path / "first", tmp_path / "second"
  _write(first / "train" / "a.png", [[0, 1], [2, 2]])
  _write(second / "train" / "a.png", [[0, 0], [2, 2]])
  _write(first / "b.png", [[1, 1]])
  _write(second / "b.png", [[1, 2]])
  _write(second / "c.png", [[7, 7]])  # in one folder alone
  counts, images = confusion(first, second)
  assert images == 2
  assert counts[:3, :3].tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 2]]
  agreement = intersection_over_union(counts)
  np.testing.assert_allclose(agreement[:3], [1 / 2, 1 / 3, 2 / 3])
  assert np.isnan(agreement[3:]).all()
  assert main([str(first), str(second)]) == 0
  assert "mean        0.500" in capsys.readouterr().out


def test_folders_without_a_common_image_are_a_mistake(tmp_path, capsys):
  assert main([str(tmp_path / "x"), str(tmp_path / "y")]) == 2
  assert "no image has labels in both" in capsys.readouterr().err
