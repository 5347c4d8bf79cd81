"""Data sets with a folder a split and person and camera in the file names, as Market-1501 began."""

from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import ClassVar

from magnifier_jax.data.datasets.file_builder import FileReidBuilder, ListedImage, find_folder
from magnifier_jax.data.image_folders import FolderListing, Unused, instead_of_images
from magnifier_jax.data.image_names import told_by_name
from magnifier_jax.data.records import SourceError, SourceMissingError

SPLIT_FOLDERS = {
  "train": "bounding_box_train",
  "query": "query",
  "gallery": "bounding_box_test",
}


class SplitFolderBuilder(FileReidBuilder):
  """Base of the data sets with the folders bounding_box_train, query and bounding_box_test."""

  TITLE: ClassVar[str]
  FOLDER_NAMES: ClassVar[tuple[str, ...]]  # what people call the data set's folder
  EXAMPLE: ClassVar[str]  # the name of an image

  def data_set_folder(self, manual_dir: Path) -> Path:
    return find_folder(manual_dir, self.FOLDER_NAMES)

  def images_folder(self, manual_dir: Path) -> Path:
    """Returns the folder that holds those of the splits."""
    return self.data_set_folder(manual_dir)

  def list_images(self, split: str, manual_dir: Path) -> list[ListedImage]:
    folder = self.images_folder(manual_dir) / SPLIT_FOLDERS[split]
    images, self.unused[split] = (
      list_named(folder, folder.name, nested=False) if folder.is_dir() else ([], [])
    )
    if not images:
      raise SourceMissingError(
        f"{folder}: {'no images there' if folder.is_dir() else 'no such folder'}"
        f"{instead_of_images(self.unused[split])}; it should hold "
        f"the {split} images of {self.TITLE}, named as {self.EXAMPLE}. config.data.manual_dir is "
        f"the folder that holds {self.FOLDER_NAMES[0]}"
      )
    return images

  def naming(self) -> str:
    return (
      f"the name of an image begins with person_ccamera, as {self.EXAMPLE} does; rename it or move "
      "it away"
    )


def list_named(folder: Path, path: str, *, nested: bool) -> tuple[list[ListedImage], list[Unused]]:
  """Lists the images of a folder, whose names tell person and camera, and what is not used there.

  Args:
    folder: exists.
    path: of the folder below the data set's.
    nested: whether images in folders inside are listed too.

  Raises:
    SourceError: when the folder cannot be read.
  """
  try:
    listing = FolderListing(str(folder), nested=nested)
  except OSError as error:
    raise SourceError(f"{folder}: cannot be read ({error.strerror})") from error
  images = [
    ListedImage(f"{folder}/{inside}", f"{path}/{inside}", *told_by_name(inside))
    for inside in listing.paths
  ]
  people = {image.person_id for image in images}
  return images, [*_lost_people(folder, listing.other_images, people), *listing.unused]


def _lost_people(
  folder: Path, other_images: Sequence[str], people: Set[int | None]
) -> Iterator[Unused]:
  """Yields the people of whom there are images in other formats only."""
  lost: dict[int, list[str]] = {}
  for path in other_images:
    person_id = told_by_name(path).person_id
    if person_id is not None and person_id not in people:
      lost.setdefault(person_id, []).append(path)
  for person_id, paths in lost.items():
    reason = f"all there is of person {person_id}, and in no format that is used"
    yield Unused(f"{folder}/{paths[0]}", len(paths), reason, is_person=True)
