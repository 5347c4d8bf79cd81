"""Data sets with a folder a split and person and camera in the file names, as Market-1501 began."""

import re
from pathlib import Path
from typing import ClassVar

from magnifier_jax.data import image_files
from magnifier_jax.data.datasets.file_builder import FileReidBuilder, ListedImage, find_folder
from magnifier_jax.data.records import SourceMissingError

SPLIT_FOLDERS = {
  "train": "bounding_box_train",
  "query": "query",
  "gallery": "bounding_box_test",
}
_NAME = re.compile(r"(?P<person_id>-?\d+)_c(?P<camera_id>\d+)(?!\d)")


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
    images = image_files.list_images(folder) if folder.is_dir() else []
    if not images:
      raise SourceMissingError(
        f"{folder}: {'no images there' if folder.is_dir() else 'no such folder'}; it should hold "
        f"the {split} images of {self.TITLE}, named as {self.EXAMPLE}. config.data.manual_dir is "
        f"the folder that holds {self.FOLDER_NAMES[0]}"
      )
    return [named_image(file, f"{folder.name}/{file.name}") for file in images]

  def naming(self) -> str:
    return (
      f"the name of an image begins with person_ccamera, as {self.EXAMPLE} does; rename it or move "
      "it away"
    )


def named_image(file: Path, path: str) -> ListedImage:
  """Returns an image of the person and camera that its name begins with, as in 0002_c1s1_7.jpg."""
  name = _NAME.match(file.name)
  if name is None:
    return ListedImage(file, path, None, None)
  return ListedImage(file, path, int(name["person_id"]), int(name["camera_id"]))
