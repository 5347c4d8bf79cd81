"""Files that are read together are read as alone: the same bytes, and the same complaint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from magnifier_jax.data import image_files
from magnifier_jax.data.files_together import FilesTogether
from magnifier_jax.data.records import SourceError

from .unusual_images import KINDS, SIZE_HW, picture, save

ORIENTATION = 0x0112


def _turned() -> bytes:
  exif = Image.Exif()
  exif[ORIENTATION] = 6
  return save(Image.fromarray(picture()), "JPEG", exif=exif)


def _images() -> dict[str, bytes]:
  """Returns files of every kind, good and bad."""
  good = {name: encode(picture())[0] for name, encode in KINDS.items()}
  return good | {
    "turned": _turned(),
    "gif": save(Image.fromarray(picture()), "GIF"),
    "text": b"no image",
    "empty": b"",
    "cut": good["png"][:-30],
  }


def _labels() -> dict[str, Image.Image]:
  classes = np.arange(np.prod(SIZE_HW)).reshape(SIZE_HW) % 8
  palette = Image.fromarray(classes.astype(np.uint8), "P")
  palette.putpalette(list(range(24)))
  return {
    "gray": Image.fromarray(classes.astype(np.uint8)),
    "palette": palette,
    "too large a value": Image.fromarray((classes + 1).astype(np.uint8)),
    "another size": Image.fromarray(classes[:-1].astype(np.uint8)),
    "three channels": Image.fromarray(picture()),
  }


def _result(read: Callable[..., Any], *arguments: Any) -> Any:
  try:
    return read(*arguments)
  except SourceError as error:
    return str(error)


def _write(folder: Path, files: dict[str, bytes]) -> list[Path]:
  paths = [folder / f"{name}.png" for name in files]
  for path, encoded in zip(paths, files.values()):
    path.write_bytes(encoded)
  return paths


def _without(files: dict[str, bytes], names: set[str]) -> dict[str, bytes]:
  return {name: encoded for name, encoded in files.items() if name not in names}


@pytest.mark.parametrize("left_out", [set(), {"cut"}])  # with a damaged file, and without
def test_images_are_read_as_alone(tmp_path, left_out):
  paths = [*_write(tmp_path, _without(_images(), left_out)), tmp_path / "missing.png"]
  together = FilesTogether(map(str, paths), [])
  for path in paths:
    assert _result(together.read_image, path) == _result(image_files.read_image, path)


@pytest.mark.parametrize(("encoded", "reason"), [(b"", "empty"), (b"text", "of no known format")])
def test_what_is_no_image_is_said(tmp_path, encoded, reason):
  (path,) = _write(tmp_path, {"file": encoded})
  for read in (image_files.read_image, FilesTogether([str(path)], []).read_image):
    assert _result(read, path) == f"{path}: truncated or unreadable image ({reason}); replace it"


def test_part_labels_are_read_as_alone(tmp_path):
  paths = _write(tmp_path, {name: save(image, "PNG") for name, image in _labels().items()})
  np.save(tmp_path / "labels.npy", np.ones(SIZE_HW, np.uint8))
  paths += [tmp_path / "labels.npy", tmp_path / "missing.png"]
  together = FilesTogether([], map(str, paths))
  for path in paths:
    alone = _result(image_files.read_part_labels, path, SIZE_HW)
    assert _result(together.read_part_labels, path, SIZE_HW) == alone


def test_usual_files_are_not_read_again(tmp_path):
  usual = {name: encoded for name, encoded in _images().items() if name in ("png", "jpeg")}
  images = _write(tmp_path, usual)
  (labels,) = _write(tmp_path, {"labels": save(_labels()["gray"], "PNG")})
  together = FilesTogether(map(str, images), [str(labels)])
  for path in (*images, labels):
    path.unlink()
  assert [together.read_image(path).encoded for path in images] == list(usual.values())
  assert together.read_part_labels(labels, SIZE_HW)
