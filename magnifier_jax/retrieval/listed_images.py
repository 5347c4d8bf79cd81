"""Which images to embed, and what is known of each: from a folder, a CSV file or a single image."""

import datetime
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from magnifier_jax.data.csv_columns import read_columns
from magnifier_jax.data.image_folders import FolderListing, Unused, instead_of_images
from magnifier_jax.data.image_names import told_by_name
from magnifier_jax.data.records import SourceError
from magnifier_jax.files.user_path import user_path

_KNOWN = ("person", "camera", "time", "track")


class ListedImage(NamedTuple):
  """An image file and what is known of it; '' or None is not known."""

  path: str  # absolute
  person: str = ""
  camera: str = ""
  time: float | None = None  # seconds since 1970, or any number that rises with time
  track: str = ""


class ImageList(NamedTuple):
  """Images to embed."""

  images: Sequence[ListedImage]  # each path once
  unused: Sequence[Unused] = ()  # what lies among them and is not used
  repeated: int = 0  # rows of a table whose image stands above


def list_images(source: Path) -> ImageList:
  """Lists images.

  Args:
    source: a folder, whose images may be nested and tell person and camera by names that begin
      with person_ccamera, as 0002_c1s1_7.jpg does; a CSV file with the column image (a path: below
      its folder, absolute, or with `~`) and perhaps person, camera, time and track; or one image.

  Raises:
    SourceError: when it is missing, has no images, or a row is wrong.
  """
  if source.is_dir():
    return _list_folder(source)
  if not source.exists():
    raise SourceError(f"{source}: no such folder, CSV file or image")
  if source.suffix.lower() == ".csv":
    return _list_table(source)
  return ImageList([_known_by_name(os.path.abspath(source))])


def _list_folder(folder: Path) -> ImageList:
  try:
    listing = FolderListing(str(folder), nested=True)
  except OSError as error:
    raise SourceError(f"{folder}: cannot be read ({error.strerror})") from error
  if not listing.paths:
    raise SourceError(f"{folder}: no images there{instead_of_images(listing.unused)}")
  return ImageList(_InFolder(os.path.abspath(folder), listing.paths), listing.unused)


class _InFolder(Sequence[ListedImage]):
  """The images of a folder; a tenth of the memory that as many `ListedImage` would take."""

  def __init__(self, folder: str, paths: Sequence[str]):
    self._folder, self._paths = folder, paths

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> ListedImage:
    return _known_by_name(f"{self._folder}/{self._paths[index]}")


def _known_by_name(path: str) -> ListedImage:
  told = told_by_name(path)
  return ListedImage(path, *("" if number is None else str(number) for number in told))


def _list_table(table: Path) -> ImageList:
  images: dict[str, ListedImage] = {}
  repeated = 0
  for line, (image, person, camera, time, track) in read_columns(table, ("image",), _KNOWN):
    if not image:
      raise SourceError(f"{table}: line {line}: no image is named")
    path = os.path.abspath(table.parent / user_path(image))
    repeated += path in images
    seconds = _seconds(time, f"{table}: line {line}")
    images.setdefault(path, ListedImage(path, person, camera, seconds, track))
  if not images:
    raise SourceError(f"{table}: no row names an image")
  return ImageList(list(images.values()), repeated=repeated)


def _seconds(text: str, where: str) -> float | None:
  if not text:
    return None
  try:
    seconds = float(text)
  except ValueError:
    try:
      seconds = datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
      seconds = math.nan
  if not math.isfinite(seconds):
    raise SourceError(
      f"{where}: time {text!r} must be a number, or a date and time as 2026-11-28T12:00:00+00:00"
    )
  return seconds
