"""The images of a data set as files on a disk, which part labels must neither replace nor join."""

import contextlib
import functools
import itertools
import os
from pathlib import Path

from PIL import Image

from magnifier_jax.data.datasets.file_builder import FileReidBuilder
from magnifier_jax.data.records import SPLITS, SourceError
from magnifier_jax.part_labelling.labeller import LabellingError

_LOOKED_AT = 8  # pictures of a folder


class Photographs:
  """Knows where the images of all splits lie, whatever links lead to them.

  Args:
    builder: of the data set.
    manual_dir: that holds it.
  """

  def __init__(self, builder: FileReidBuilder, manual_dir: Path):
    self._data_set = builder.data_set_folder(manual_dir)
    self._files: list[str] = []
    self._tops: set[str] = set()  # below which an image is looked for
    for split in SPLITS:
      with contextlib.suppress(SourceError):  # labelling the other splits need not fail for it
        for image in builder.list_images(split, manual_dir):
          if isinstance(image.file, str):
            self._files.append(image.file)
            self._tops.add(builder.part_labels_path(image).rpartition("/")[0].partition("/")[0])

  def check_folder(self, folder: Path, is_chosen: bool) -> None:
    """Refuses a folder of labels in which images lie, or in which they are looked for.

    Args:
      folder: need not exist.
      is_chosen: True: somebody named it, and it may be of quite another data set.

    Raises:
      LabellingError: when it is one.
    """
    place = os.path.realpath(folder)
    if (
      place in self._folders
      or any(os.path.commonpath([place, top]) == top for top in self._image_folders)
      or (is_chosen and _has_photograph(place))
    ):
      raise LabellingError(
        f"{folder}: photographs lie there, and labels would get among them; name another folder "
        "with --to"
      )

  def __contains__(self, file: Path) -> bool:
    """Says whether a file is one of the images, under this or another name."""
    try:
      found = file.stat()
    except OSError:
      return False
    return (found.st_dev, found.st_ino) in self._inodes

  @functools.cached_property
  def _folders(self) -> frozenset[str]:
    """The folders in which images lie, without links."""
    return frozenset(map(os.path.realpath, {os.path.dirname(file) for file in self._files}))

  @functools.cached_property
  def _image_folders(self) -> frozenset[str]:
    """The folders in the data set's own that hold its images, nested or not."""
    return frozenset(os.path.realpath(self._data_set / top) for top in self._tops - {"", ".", ".."})

  @functools.cached_property
  def _inodes(self) -> frozenset[tuple[int, int]]:
    inodes = set()
    for file in self._files:
      with contextlib.suppress(OSError):  # a list may name files that are not there
        found = os.stat(file)
        inodes.add((found.st_dev, found.st_ino))
    return frozenset(inodes)


def _has_photograph(folder: str) -> bool:
  """Says whether a JPEG file lies in a folder, or a PNG of colours among the first of those."""
  try:
    with os.scandir(folder) as entries:
      names = [entry.name for entry in entries if not entry.name.startswith(".")]
  except OSError:  # it is not there yet, or writing to it will fail
    return False
  if any(name.lower().endswith((".jpg", ".jpeg")) for name in names):
    return True
  pictures = (name for name in names if name.lower().endswith(".png"))
  return any(_has_colours(f"{folder}/{name}") for name in itertools.islice(pictures, _LOOKED_AT))


def _has_colours(file: str) -> bool:
  try:
    with Image.open(file) as image:
      return len(image.getbands()) > 1
  except (OSError, SyntaxError, ValueError):
    return False
