"""A data set of the user's own: a CSV file that lists the images, or a folder a split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from magnifier_jax.data import part_label_files
from magnifier_jax.data.datasets.file_builder import FileReidBuilder, ListedImage
from magnifier_jax.data.datasets.image_table import read_table
from magnifier_jax.data.datasets.split_folders import SPLIT_FOLDERS, list_named
from magnifier_jax.data.image_folders import Unused, instead_of_images
from magnifier_jax.data.records import SPLITS, SourceError, SourceMissingError

CSV_NAME = "images.csv"


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
    self._table: _Table | None = None
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
    if (folder / CSV_NAME).is_file():
      images = self._read_table(folder / CSV_NAME).images[split]
      if not images:
        raise SourceError(f"{folder / CSV_NAME}: no row has the split {split}")
      self.unused[split] = []  # what a table does not list is nobody's mistake
      return images
    images, self.unused[split] = _find_images(folder, split)
    return images

  def clashing_labels(self, split_paths: Sequence[str], manual_dir: Path) -> frozenset[str]:
    table = self.data_set_folder(manual_dir) / CSV_NAME
    if not table.is_file():
      return super().clashing_labels(split_paths, manual_dir)
    # A table can have images of one folder in several splits.
    return self._read_table(table).clashes

  def _read_table(self, table: Path) -> "_Table":
    """Returns what a table lists; it is read again only when it has changed."""
    about = table.stat()
    version = table, about.st_ino, about.st_size, about.st_mtime_ns
    if self._table is None or self._table.version != version:
      images = read_table(table)
      paths = (image.path for split in images.values() for image in split)
      self._table = _Table(version, images, part_label_files.clashing_names(paths))
    return self._table


class _Table(NamedTuple):
  """A table that was read."""

  version: tuple[Path, int, int, int]  # of the file
  images: dict[str, list[ListedImage]]  # by split
  clashes: frozenset[str]  # names of part labels that several images would share


def _find_images(folder: Path, split: str) -> tuple[list[ListedImage], list[Unused]]:
  """Returns the images below a split's folder, by path, and what is not used there."""
  places = [folder / name for name in dict.fromkeys((split, SPLIT_FOLDERS[split]))]
  there = [place for place in places if place.is_dir()] or places
  place, *others = there
  images, unused = list_named(place, place.name, nested=True) if place.is_dir() else ([], [])
  if not images:
    raise SourceMissingError(
      f"{place}: no images there{instead_of_images(unused)}; a data set of your own has {CSV_NAME} "
      f"or folders {', '.join(SPLITS)} in {folder}. config.data.manual_dir is the folder that "
      f"holds {folder.name}, config.data.dataset is 'image_list/{folder.name}'"
    )
  reason = f"a folder that is not used, since {place.name} is there"
  return images, unused + [Unused(str(other), 1, reason) for other in others if other.is_dir()]
