"""A data set of the user's own: a CSV file that lists the images, or a folder a split."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from magnifier_jax.data.datasets.file_builder import FileReidBuilder, ListedImage
from magnifier_jax.data.datasets.split_folders import SPLIT_FOLDERS, named_image
from magnifier_jax.data.image_files import IMAGE_SUFFIXES
from magnifier_jax.data.records import SPLITS, SourceError, SourceMissingError

CSV_NAME = "images.csv"
_COLUMNS = ("image", "person", "camera", "split")
_CAMERA = re.compile(r"c?(\d+)")


class ImageList(FileReidBuilder):
  """A data set of the user's own.

  Its folder has `images.csv` with the columns image (path below the folder), person, camera and
  split (train, query, gallery); or folders train, query and gallery (or Market-1501's names), in
  which images may be nested and whose names begin with person_ccamera. Person −1 is junk; a person
  of the gallery who is in no query is a distractor.
  """

  VERSION = tfds.core.Version("1.0.0")
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
  Put NAME/images.csv with the columns image,person,camera,split and the images that it lists into
  this folder, or NAME/{train,query,gallery}/0001_c1_1.jpg; and the part labels
  NAME_ps_label/….png.
  """

  def __init__(self, *, folder: str, **kwargs: Any):
    """Makes a builder.

    Args:
      folder: name of the data set's folder in the manual directory.
      **kwargs: as `FileReidBuilder`.
    """
    self.folder = folder
    # Two data sets of a user have two prepared copies.
    self.name = f"image_list_{folder}"
    super().__init__(**kwargs)

  def data_set_folder(self, manual_dir: Path) -> Path:
    return manual_dir / self.folder

  def naming(self) -> str:
    return (
      "the name of an image begins with person_ccamera, as 0001_c1_1.jpg does; rename it or list "
      f"the images in {CSV_NAME}"
    )

  def list_images(self, split: str, manual_dir: Path) -> list[ListedImage]:
    folder = self.data_set_folder(manual_dir)
    table = folder / CSV_NAME
    if table.is_file():
      images = [image for row_split, image in _read_table(table) if row_split == split]
      if not images:
        raise SourceError(f"{table}: no row has the split {split}")
      return images
    return list(_find_images(folder, split))

  def paths_of_labels(self, split_paths: Sequence[str], manual_dir: Path) -> Sequence[str]:
    table = self.data_set_folder(manual_dir) / CSV_NAME
    # A table can have images of one folder in several splits.
    return [image.path for _, image in _read_table(table)] if table.is_file() else split_paths


def _find_images(folder: Path, split: str) -> Iterator[ListedImage]:
  """Yields the images below a split's folder, by path."""
  places = [folder / name for name in (split, SPLIT_FOLDERS[split])]
  place = next((place for place in places if place.is_dir()), places[0])
  files = sorted(
    file
    for file in place.rglob("*")
    if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
  )
  if not files:
    raise SourceMissingError(
      f"{place}: no images there; a data set of your own has {CSV_NAME} or folders "
      f"{', '.join(SPLITS)} in {folder}. config.data.manual_dir is the folder that holds "
      f"{folder.name}, config.data.dataset is 'image_list/{folder.name}'"
    )
  for file in files:
    yield named_image(file, file.relative_to(folder).as_posix())


def _read_table(table: Path) -> list[tuple[str, ListedImage]]:
  """Returns split and image of each row."""
  try:
    with table.open(newline="", encoding="utf-8-sig") as file:
      reader = csv.DictReader(file)
      missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
      if missing:
        raise SourceError(
          f"{table}: column {missing[0]!r} missing; the columns are {', '.join(_COLUMNS)}"
        )
      rows = [_read_row(row, table, reader.line_num) for row in reader]
  except (UnicodeDecodeError, csv.Error) as error:
    raise SourceError(f"{table}: not a CSV file in UTF-8 ({error})") from error
  repeated = [path for path, times in Counter(i.path for _, i in rows).items() if times > 1]
  if repeated:
    raise SourceError(f"{table}: image {repeated[0]!r} is listed twice; list it once")
  return rows


def _read_row(row: dict[str, str | None], table: Path, line: int) -> tuple[str, ListedImage]:
  path, person, camera, split = ((row[name] or "").strip() for name in _COLUMNS)
  camera_number = _CAMERA.fullmatch(camera)
  if split not in SPLITS:
    raise SourceError(f"{table}: line {line}: split {split!r} is none of {', '.join(SPLITS)}")
  if not re.fullmatch(r"-?\d+", person) or camera_number is None:
    raise SourceError(
      f"{table}: line {line}: person {person!r} and camera {camera!r} must be whole numbers"
    )
  image = ListedImage(table.parent / path, path, int(person), int(camera_number[1]))
  return split, image
