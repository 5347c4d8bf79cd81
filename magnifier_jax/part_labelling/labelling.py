"""Labels the images of a data set that have no part labels yet, and counts what it did."""

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.data.datasets.file_builder import FileReidBuilder, FileSource
from magnifier_jax.data.image_files import (
  decode_image,
  decode_part_labels,
  encode_png,
  is_part_labels,
)
from magnifier_jax.data.part_label_files import label_folder
from magnifier_jax.data.records import SourceError
from magnifier_jax.files.whole_file import make_folder, write_bytes
from magnifier_jax.part_labelling.label_record import LabelRecord
from magnifier_jax.part_labelling.labeller import LabellingError, PartLabeller, PersonImage
from magnifier_jax.part_labelling.photographs import Photographs

_ELSEWHERE = "name another folder with --to"


class Place(NamedTuple):
  """An image, and where its part labels belong."""

  source: FileSource
  image: str  # relative path of the image, as its labels are named
  label: str  # relative path of the labels
  file: Path  # of the labels


@dataclasses.dataclass
class Coverage:
  """What became of the images of a split."""

  split: str
  images: int
  made_now: int = 0
  made_before: int = 0  # by the same method
  made_otherwise: Counter = dataclasses.field(default_factory=Counter)  # method → labels, kept
  nothing_found: list[str] = dataclasses.field(default_factory=list)  # images
  failed: list[str] = dataclasses.field(default_factory=list)  # what is wrong with each
  left_alone: list[str] = dataclasses.field(default_factory=list)  # files that are no part labels
  part_pixels: np.ndarray = dataclasses.field(  # (8,) int64, of the labels of this method
    default_factory=lambda: np.zeros(NUM_PARTS, np.int64)
  )

  @property
  def labelled(self) -> int:
    """Images that have part labels now."""
    return self.made_now + self.made_before + self.made_otherwise.total()

  def count_pixels(self, parts: np.ndarray) -> None:
    """Counts the parts of one image, (H, W) uint8."""
    self.part_pixels += np.bincount(parts.ravel(), minlength=NUM_PARTS)


class LabelFolder:
  """A folder of part labels with its record.

  Args:
    folder: need not exist.
    photographs: of the data set; labels never take the place of one.
  """

  def __init__(self, folder: Path, photographs: Photographs):
    self.folder = folder
    self.record = LabelRecord(folder)
    self._photographs = photographs

  def holds_something_else(self, place: Place) -> bool:
    """Says whether what lies at a place is not part labels, so that it must stay."""
    if not os.path.lexists(place.file):
      return False
    if not place.file.is_file() or place.file in self._photographs:
      return True
    content = place.file.read_bytes()
    return self.record.method_of(place.label, content) is None and not is_part_labels(content)

  def write(self, place: Place, parts: np.ndarray, labeller: PartLabeller) -> None:
    """Writes labels, whole or not at all.

    Raises:
      LabellingError: when something else has come to lie there.
      WriteError: when the folder cannot be written to.
    """
    content = encode_png(parts)
    make_folder(place.file.parent, _ELSEWHERE)
    if self.holds_something_else(place):
      raise LabellingError(f"{place.file}: appeared just now, and is not part labels; move it")
    # Recorded first: a label that is there without its line would count as made otherwise.
    self.record.add(place.label, content, labeller.method)
    write_bytes(place.file, content, _ELSEWHERE)


def find_places(
  builder: FileReidBuilder, split: str, manual_dir: Path, folder: Path | None
) -> list[Place]:
  """Lists the images of a split with the places of their part labels.

  Args:
    builder: of the data set.
    split: 'train', 'query' or 'gallery'.
    manual_dir: that holds the data set.
    folder: of the labels; None is where the data set's builder looks for them.

  Raises:
    SourceError: when the images cannot be listed.
  """
  own_folder = label_folder(builder.data_set_folder(manual_dir))
  places = []
  for source in builder.sources(split, manual_dir):
    label = source.part_labels_place.removeprefix(f"{own_folder}/")
    image = builder.part_labels_path(source.image)
    places.append(Place(source, image, label, (folder or own_folder) / label))
  return places


def count_makers(places: Sequence[Place], record: LabelRecord) -> Counter[str]:
  """Counts the labels that lie where these images' belong, by how they were made."""
  makers: Counter[str] = Counter()
  for place in places:
    if place.file.is_file():
      method = record.method_of(place.label, place.file.read_bytes())
      makers["given" if method is None else str(method)] += 1
  return makers


def label_split(
  builder: FileReidBuilder,
  split: str,
  places: Sequence[Place],
  folder: LabelFolder,
  labeller: PartLabeller,
  *,
  overwrite: bool = False,
  progress: Callable[[int], object] = lambda images: None,
) -> Coverage:
  """Labels the images that have no part labels by this method yet.

  Args:
    builder: of the data set.
    split: name of the split.
    places: its images.
    folder: of the labels.
    labeller: makes them.
    overwrite: True: labels that were given, or made otherwise, are replaced. False: they stay.
    progress: is told of every few images that are done.

  Raises:
    WriteError: when the folder cannot be written to.
    LabellingError: when the labeller cannot go on.
  """
  coverage = Coverage(split, len(places))
  wanted = (
    p for p in places if not _is_labelled(p, folder, labeller, overwrite, coverage, progress)
  )
  while chunk := list(itertools.islice(wanted, labeller.batch_size)):
    for place, parts in _label_chunk(builder, chunk, labeller, coverage):
      folder.write(place, parts, labeller)
      coverage.made_now += 1
      coverage.count_pixels(parts)
    progress(len(chunk))
  return coverage


def _is_labelled(
  place: Place,
  folder: LabelFolder,
  labeller: PartLabeller,
  overwrite: bool,
  coverage: Coverage,
  progress: Callable[[int], object],
) -> bool:
  """Says whether what lies at an image's place stays as it is, and counts it then."""
  if folder.holds_something_else(place):
    coverage.left_alone.append(str(place.file))
    progress(1)
    return True
  if place.file.is_file():
    content = place.file.read_bytes()
    method = folder.record.method_of(place.label, content)
    if method is not None and method.digest == labeller.method.digest:
      coverage.made_before += 1
      coverage.count_pixels(decode_part_labels(content))
      progress(1)
      return True
    maker = "given" if method is None else str(method)
  elif _is_labelled_elsewhere(place, folder, labeller):
    maker = "given, in segmentation/"
  else:
    return False
  if not overwrite:
    coverage.made_otherwise[maker] += 1
    progress(1)
  return not overwrite


def _is_labelled_elsewhere(place: Place, folder: LabelFolder, labeller: PartLabeller) -> bool:
  """Says whether the data set reads this image's labels from an array; conversion is for those."""
  own = place.source.part_labels
  file = str(place.file)
  is_own_folder = file == place.source.part_labels_place
  return is_own_folder and own not in (None, file) and labeller.method.name != "files"


def _label_chunk(
  builder: FileReidBuilder, chunk: Sequence[Place], labeller: PartLabeller, coverage: Coverage
) -> Iterator[tuple[Place, np.ndarray]]:
  """Yields the labels of the images in which something was found."""
  readable, images = [], []
  for place in chunk:
    try:
      pixels, file = _read_pixels(builder, place.source), place.source.image.file
      images.append(PersonImage(place.image, pixels, Path(file) if isinstance(file, str) else None))
      readable.append(place)
    except SourceError as error:
      coverage.failed.append(str(error))
  if not images:
    return
  try:
    labels = labeller.label(images)
  except SourceError as error:
    if len(images) > 1:
      raise
    coverage.failed.append(str(error))
    return
  for place, parts in zip(readable, labels, strict=True):
    if parts is None:
      coverage.nothing_found.append(place.image)
    else:
      yield place, parts


def _read_pixels(builder: FileReidBuilder, source: FileSource) -> np.ndarray:
  return decode_image(builder.read_image(source).encoded)
