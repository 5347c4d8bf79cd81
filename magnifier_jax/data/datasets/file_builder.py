"""Base of the builders that read the user's image files, with part labels beside them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from magnifier_jax.data import image_files, part_label_files
from magnifier_jax.data.datasets.reid_builder import ReidBuilder, Sources
from magnifier_jax.data.files_together import FilesTogether
from magnifier_jax.data.image_files import ImageFile
from magnifier_jax.data.image_folders import Unused
from magnifier_jax.data.records import Record, SourceError, SplitCounts

JUNK_PERSON_ID = -1
_NUMBERS = np.iinfo(np.int32)  # of people and cameras


class ListedImage(NamedTuple):
  """An image that was found, but not read yet."""

  file: Any  # its path, str, or what else `FileReidBuilder.read_image` of its data set takes
  path: str  # relative, with `/`, unique within its split
  person_id: int | None  # None where the file's name does not tell
  camera_id: int | None


class FileSource(NamedTuple):
  """An image that was found, and where its part labels are."""

  split: str
  image: ListedImage
  part_labels: str | None  # path of the file; None where there are none
  part_labels_place: str  # where they are looked for first


class FileReader(Protocol):
  """Reads files as the functions of `image_files` do."""

  def read_image(self, path: Path) -> ImageFile:
    """Reads an image."""

  def read_part_labels(self, path: Path, size_hw: tuple[int, int]) -> bytes:
    """Reads the part labels of an image of that height and width."""


class FileReidBuilder(ReidBuilder):
  """Base of the data sets that consist of the user's own files.

  A subclass implements `data_set_folder`, `list_images` and `naming`.
  """

  PUBLISHED_COUNTS: ClassVar[dict[str, SplitCounts]] = {}
  DISTRACTOR_PERSON_ID: ClassVar[int | None] = None
  NUMBERS_TEST_PEOPLE_ANEW: ClassVar[bool] = False  # True: a number in both is not the same person

  def __init__(self, *, missing_part_labels: str = "refuse", **kwargs: Any):
    """Makes a builder.

    Args:
      missing_part_labels: 'refuse', 'background' or 'bands': what happens to training images
        without part labels. Test images without any get background, since the network finds the
        parts of those itself.
      **kwargs: as TFDS's builders.
    """
    self.missing_part_labels = missing_part_labels
    self.unused: dict[str, list[Unused]] = {}  # by split, since it was last listed
    super().__init__(**kwargs)

  def data_set_folder(self, manual_dir: Path) -> Path:
    """Returns the folder that the paths of images, and of part labels, are relative to."""
    raise NotImplementedError

  def list_images(self, split: str, manual_dir: Path) -> list[ListedImage]:
    """Lists the images of a split in a fixed order.

    Raises:
      SourceMissingError: when there are none where they are looked for.
      SourceError: when a list of images is damaged.
    """
    raise NotImplementedError

  def naming(self) -> str:
    """Says what tells person and camera of an image; completes "person and camera unknown; "."""
    raise NotImplementedError

  def part_labels_path(self, image: ListedImage) -> str:
    """Returns the path below `data_set_folder` that an image's part labels are named after."""
    return image.path

  def clashing_labels(self, split_paths: Sequence[str], manual_dir: Path) -> frozenset[str]:
    """Returns the names of part labels that several images would share.

    Args:
      split_paths: `part_labels_path` of the images of a split.
      manual_dir: folder that holds the data set.
    """
    del manual_dir
    # In most layouts no two splits have a folder in common.
    return part_label_files.clashing_names(split_paths)

  def published_counts(self) -> dict[str, SplitCounts]:
    """Returns the published counts by split; {} when nobody published any."""
    return self.PUBLISHED_COUNTS

  def sources(self, split: str, manual_dir: Path) -> list[FileSource]:
    """Lists the images of a split with their part labels; see `ReidBuilder.sources`.

    Junk (person −1) is left out of training: it is of no one person.
    """
    folder = self.data_set_folder(manual_dir)
    images = self.list_images(split, manual_dir)
    if split == "train":
      images = [image for image in images if image.person_id != JUNK_PERSON_ID]
    paths = [self.part_labels_path(image) for image in images]
    clashes = self.clashing_labels(paths, manual_dir)
    found = part_label_files.find_part_labels(folder, paths, clashes)
    return [FileSource(split, image, *labels) for image, labels in zip(images, found)]

  def check_sources(self, split: str, sources: Sequence[FileSource]) -> None:
    """Refuses training images without part labels, unless the config says otherwise."""
    if split != "train" or self.missing_part_labels != "refuse":
      return
    missing = [source for source in sources if source.part_labels is None]
    if missing:
      raise _missing_part_labels(missing[0], f" (for {len(missing)} of {len(sources)} images)")

  def read_record(self, source: FileSource) -> Record:
    """Reads and checks one image and its part labels; see `ReidBuilder.read_record`."""
    return self._record(source, image_files)

  def read_records(self, sources: Sequence[FileSource]) -> list[Record]:
    """Reads and checks images with their part labels; see `ReidBuilder.read_records`."""
    together = FilesTogether(
      images=[source.image.file for source in sources if isinstance(source.image.file, str)],
      part_labels=[source.part_labels for source in sources if source.part_labels],
    )
    return [self._record(source, together) for source in sources]

  def _record(self, source: FileSource, files: FileReader) -> Record:
    person_id, camera_id = self.identify(source)
    image = self.read_image(source, files)
    return Record(
      image=image.encoded,
      part_labels=self.read_part_labels(source, image.size_hw, files),
      person_id=person_id,
      camera_id=camera_id,
      path=source.image.path,
    )

  def identify(self, source: FileSource) -> tuple[int, int]:
    """Returns person and camera.

    Raises:
      SourceError: when the file's name does not tell, or int32 cannot hold a number.
    """
    _, _, person_id, camera_id = source.image
    if person_id is None or camera_id is None:
      raise SourceError(f"{source.image.file}: person and camera unknown; {self.naming()}")
    for what, number in (("person", person_id), ("camera", camera_id)):
      if not _NUMBERS.min <= number <= _NUMBERS.max:
        raise SourceError(
          f"{source.image.file}: {what} {number} is too large; numbers go up to {_NUMBERS.max}. "
          "Number people and cameras from 1"
        )
    return person_id, camera_id

  def read_image(self, source: FileSource, files: FileReader = image_files) -> ImageFile:
    """Reads one image and proves that all of it decodes.

    Args:
      source: the image.
      files: reads its file.

    Raises:
      SourceError: when it does not.
    """
    return files.read_image(Path(source.image.file))

  def read_part_labels(
    self, source: FileSource, size_hw: tuple[int, int], files: FileReader = image_files
  ) -> bytes:
    """Reads the part labels of one image, or makes what stands in for them.

    Args:
      source: the image.
      size_hw: its height and width, pixels.
      files: reads their file.

    Returns:
      A gray PNG file, (H, W, 1) uint8, values 0…7.

    Raises:
      SourceError: when they are damaged, or missing and not to be replaced.
    """
    if source.part_labels is not None:
      return files.read_part_labels(Path(source.part_labels), size_hw)
    if source.split != "train" or self.missing_part_labels == "background":
      return part_label_files.background_labels(size_hw)
    if self.missing_part_labels == "refuse":
      raise _missing_part_labels(source)
    return part_label_files.band_labels(size_hw)

  def describe(self, source: FileSource) -> str:
    """Returns whom an image shows and what its part labels are; see `ReidBuilder.describe`."""
    image, labels = source.image, source.part_labels
    kind = "none" if labels is None else os.path.splitext(labels)[1]
    return f"{image.path}|{image.person_id}|{image.camera_id}|{kind}"

  def files(self, source: FileSource) -> tuple[str, ...]:
    """Returns the files of an image and its part labels; see `ReidBuilder.files`."""
    image = self.image_file(source.image)
    labels = source.part_labels
    return (image,) if labels is None else (image, labels)

  def image_file(self, image: ListedImage) -> str:
    """Returns the file that an image is read from."""
    return image.file

  def recipe(self) -> str:
    """Returns which version of the code reads files; see `ReidBuilder.recipe`."""
    return f"reader {image_files.READER_VERSION}"

  def options(self, sources: Sources | None = None) -> dict[str, str]:
    """Returns what stands in for missing part labels; see `ReidBuilder.options`."""
    if sources is None or any(source.part_labels is None for source in sources["train"]):
      return {"missing_part_labels": self.missing_part_labels}
    return {}


def find_folder(manual_dir: Path, names: Sequence[str]) -> Path:
  """Returns the first of some folders that exists, or else the first."""
  folders = [manual_dir / name for name in names]
  return next((folder for folder in folders if folder.is_dir()), folders[0])


def _missing_part_labels(source: FileSource, how_many: str = "") -> SourceError:
  return SourceError(
    f"{source.image.file}: part labels missing{how_many}; looked for {source.part_labels_place} "
    "and for .npy arrays in segmentation/. Make them with magnifier_jax.tools.label_parts, or "
    "set config.data.missing_part_labels to 'background' or 'bands'"
  )
