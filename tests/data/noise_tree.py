"""Writes data sets of noise images, so that nobody's photograph is needed."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
SIZE_HW = (48, 20)


def write_tree(
  manual_dir: Path,
  train_images: Sequence[int] = (3, 2),
  test_people: int = 2,
  size_hw: tuple[int, int] = SIZE_HW,
  suffix: str = ".png",
) -> None:
  """Writes a data set with `train_images[i]` images of training person 10 + 3·i."""
  for i, count in enumerate(train_images):
    _write_person(manual_dir, "train", 10 + 3 * i, range(count), size_hw, suffix)
  for person in range(1, test_people + 1):
    _write_person(manual_dir, "query", person, range(1), size_hw, suffix)
    _write_person(manual_dir, "gallery", person, range(1, 3), size_hw, suffix)


def write_images(root: Path, images: Iterable[str], labels: Path | None = None) -> None:
  """Writes noise images below a folder, and their part labels below another.

  Args:
    root: folder of the data set.
    images: relative paths; the ending says the kind.
    labels: gets the PNG of the same path; None writes no part labels.
  """
  for path in images:
    random = np.random.default_rng(list(path.encode()))
    _save(root / path, random.integers(0, 256, (*SIZE_HW, 3), np.uint8))
    if labels is not None:
      _save((labels / path).with_suffix(".png"), random.integers(0, 8, SIZE_HW, np.uint8))


def _save(file: Path, pixels: np.ndarray) -> None:
  file.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(file)


def image_file(manual_dir: Path, split: str = "train") -> Path:
  """Returns the first image of a split."""
  return min((manual_dir / "cuhk03-np" / "labeled" / FOLDERS[split]).glob("0*"))


def part_label_file(manual_dir: Path, split: str = "train") -> Path:
  """Returns the part labels of the first image of a split."""
  return min((manual_dir / "cuhk03-np_ps_label" / "labeled" / FOLDERS[split]).glob("0*"))


def _write_person(manual_dir, split, person_id, numbers, size_hw, suffix) -> None:
  for number in numbers:
    random = np.random.default_rng([person_id, number])
    name = f"{person_id:04d}_c{number % 2 + 1}_{number}"
    image = random.integers(0, 256, (*size_hw, 3), np.uint8)
    labels = random.integers(0, 8, size_hw, np.uint8)
    for top, pixels, ending in (
      ("cuhk03-np", image, suffix),
      ("cuhk03-np_ps_label", labels, ".png"),
    ):
      folder = manual_dir / top / "labeled" / FOLDERS[split]
      folder.mkdir(parents=True, exist_ok=True)
      Image.fromarray(pixels).save(folder / f"{name}{ending}")
