"""The table of a user's own data set: images, whom they show, from which camera, for what."""

import os
import re
from pathlib import Path

from magnifier_jax.data.csv_columns import read_columns
from magnifier_jax.data.datasets.file_builder import ListedImage
from magnifier_jax.data.records import SPLITS, SourceError
from magnifier_jax.files.user_path import user_path

_COLUMNS = ("image", "person", "camera", "split")
_CAMERA = re.compile(r"c?(\d{1,99})")
_PERSON = re.compile(r"-?\d{1,99}")
_TEST_SPLITS = {"query", "gallery"}


def read_table(table: Path) -> dict[str, list[ListedImage]]:
  """Reads a CSV file in UTF-8 with a heading; columns are divided by commas, semicolons or tabs.

  Args:
    table: with the columns image (a path: below the table's folder, absolute, or with `~`), person,
      camera and split, in any order and beside any others.

  Returns:
    The images of each of `SPLITS`, in the order of the rows.

  Raises:
    SourceError: names the line that is wrong.
  """
  images: dict[str, list[ListedImage]] = {split: [] for split in SPLITS}
  seen: dict[str, tuple[str, ListedImage]] = {}  # by path: where, and what
  shown, folder = os.fspath(table), os.fspath(table.parent)
  for line, cells in read_columns(table, _COLUMNS):
    split, image = _read_row(cells, folder, shown, line)
    images[split].append(image)
    listed = split
    if image.path in seen:
      _check_listed_again(f"{table}: line {line}", (split, image), seen[image.path])
      listed = "query and gallery"
    seen[image.path] = listed, image
  return images


def _read_row(cells: list[str], folder: str, table: str, line: int) -> tuple[str, ListedImage]:
  path, person, camera, split = cells
  camera_number = _CAMERA.fullmatch(camera)
  if split not in SPLITS:
    raise SourceError(f"{table}: line {line}: split {split!r} is none of {', '.join(SPLITS)}")
  if not _PERSON.fullmatch(person) or camera_number is None:
    raise SourceError(
      f"{table}: line {line}: person {person!r} and camera {camera!r} must be whole numbers"
    )
  if not path:
    raise SourceError(f"{table}: line {line}: no image is named")
  # There may be a million rows, and few of them need the library's way.
  is_below = path[0] not in "/~"
  file = f"{folder}/{path}" if is_below else os.path.join(folder, user_path(path))
  return split, ListedImage(file, path, int(person), int(camera_number[1]))


def _check_listed_again(
  where: str, again: tuple[str, ListedImage], before: tuple[str, ListedImage]
) -> None:
  """Lets one image be query and gallery, as evaluations that leave one out have it."""
  (split, image), (other_split, other) = again, before
  if {split, other_split} != _TEST_SPLITS:
    raise SourceError(
      f"{where}: image {image.path!r} is listed twice, in {other_split} and {split}; only query "
      "and gallery may have an image in common"
    )
  if image != other:
    raise SourceError(
      f"{where}: image {image.path!r} is of person {image.person_id} and camera {image.camera_id}, "
      f"but {other.person_id} and {other.camera_id} above"
    )
