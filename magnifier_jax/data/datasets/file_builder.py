"""Base of the builders that read the user's image files, with part labels beside them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from magnifier_jax.data import image_files, part_label_files
from magnifier_jax.data.image_files import ImageFile
from magnifier_jax.data.records import (
  SPLITS,
  Record,
  ReidBuilder,
  SourceError,
  SplitCounts,
)

JUNK_PERSON_ID = -1


class ListedImage(NamedTuple):
  """An image that was found, but not read yet."""

  file: Any  # a `Path`, or what else `FileReidBuilder.read_image` of its data set takes
  path: str  # relative, with `/`, unique within its split
  person_id: int | None  # None where the file's name does not tell
  camera_id: int | None


class FileSource(NamedTuple):
  """An image that was found, and where its part labels are."""

  split: str
  image: ListedImage
  part_labels: Path | None  # None where there are none
  part_labels_place: Path  # where they are looked for first


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
    found = part_label_files.find_part_labels(folder, paths)
    return [
      FileSource(split, image, labels, next(part_label_files.possible_part_labels(folder, path)))
      for image, labels, path in zip(images, found, paths)
    ]

  def check_sources(self, split: str, sources: Sequence[FileSource]) -> None:
    """Refuses training images without part labels, unless the config says otherwise."""
    if split != "train" or self.missing_part_labels != "refuse":
      return
    missing = [source for source in sources if source.part_labels is None]
    if missing:
      raise _missing_part_labels(missing[0], f" (for {len(missing)} of {len(sources)} images)")

  def read_record(self, source: FileSource) -> Record:
    """Reads and checks one image and its part labels; see `ReidBuilder.read_record`."""
    person_id, camera_id = self.identify(source)
    image = self.read_image(source)
    return Record(
      image=image.encoded,
      part_labels=self.read_part_labels(source, image.size_hw),
      person_id=person_id,
      camera_id=camera_id,
      path=source.image.path,
    )

  def identify(self, source: FileSource) -> tuple[int, int]:
    """Returns person and camera.

    Raises:
      SourceError: when the file's name does not tell.
    """
    _, _, person_id, camera_id = source.image
    if person_id is None or camera_id is None:
      raise SourceError(f"{source.image.file}: person and camera unknown; {self.naming()}")
    return person_id, camera_id

  def read_image(self, source: FileSource) -> ImageFile:
    """Reads one image and proves that all of it decodes.

    Raises:
      SourceError: when it does not.
    """
    return image_files.read_image(source.image.file)

  def read_part_labels(self, source: FileSource, size_hw: tuple[int, int]) -> bytes:
    """Reads the part labels of one image, or makes what stands in for them.

    Args:
      source: the image.
      size_hw: its height and width, pixels.

    Returns:
      A gray PNG file, (H, W, 1) uint8, values 0…7.

    Raises:
      SourceError: when they are damaged, or missing and not to be replaced.
    """
    if source.part_labels is not None:
      return image_files.read_part_labels(source.part_labels, size_hw)
    if source.split != "train" or self.missing_part_labels == "background":
      return part_label_files.background_labels(size_hw)
    if self.missing_part_labels == "refuse":
      raise _missing_part_labels(source)
    return part_label_files.band_labels(size_hw)

  def fingerprint(self, manual_dir: Path) -> str:
    """Digests the names and sizes of all files, and whom they show."""
    digest = hashlib.sha256(f"reader {image_files.READER_VERSION}\n".encode())
    for source in (source for split in SPLITS for source in self.sources(split, manual_dir)):
      labels = source.part_labels
      about_labels = (
        self.missing_part_labels if labels is None else (labels.suffix, labels.stat().st_size)
      )
      image = source.image
      about_image = image.path, image.person_id, image.camera_id, self.stored_bytes(image)
      digest.update(f"{source.split}|{about_image}|{about_labels}\n".encode())
    return digest.hexdigest()

  def stored_bytes(self, image: ListedImage) -> int:
    """Returns how large an image's file is; −1 when a list names a file that is not there."""
    try:
      return image.file.stat().st_size
    except OSError:
      return -1


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
