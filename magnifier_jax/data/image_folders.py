"""Finds the image files of a folder, and remembers what lies there and is not used."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from magnifier_jax.data.image_files import IMAGE_SUFFIXES

# Of images in formats that are not read: they may be all that there is of a person.
_OTHER_IMAGES = (
  *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".pbm", ".pgm", ".ppm"),
  *(".pnm", ".tga", ".tif", ".tiff", ".webp"),
)


class Unused(NamedTuple):
  """Files or folders that are not used, for one reason."""

  example: str  # path of the first
  count: int
  reason: str
  is_person: bool = False  # whether it is all that there is of a person

  def __str__(self) -> str:
    others = f", and {self.count - 1:,} more" if self.count > 1 else ""
    return f"{self.example}: {self.reason}{others}"


def instead_of_images(unused: Sequence[Unused]) -> str:
  """Returns what lies in a folder without images, to complete a message about it."""
  return f" (but {unused[0]})" if unused else ""


class FolderListing:
  """The images below a folder.

  Attributes:
    paths: of the images, below the folder, with `/`; in the order of their names, folder by folder.
    other_images: paths, likewise, of images in formats that are not read.
  """

  def __init__(self, folder: str, *, nested: bool):
    """Lists a folder. Links are followed, unless they lead back to a folder that they lie in.

    Args:
      folder: exists.
      nested: whether images in folders inside are listed too.

    Raises:
      OSError: when the folder itself cannot be read.
    """
    self.paths: list[str] = []
    self.other_images: list[str] = []
    self._folder = folder
    self._nested = nested
    self._counts: Counter[str] = Counter()
    self._examples: dict[str, str] = {}
    self._walk("", [os.path.realpath(folder)])

  @property
  def unused(self) -> list[Unused]:
    """What is not used, by reason."""
    return [Unused(self._examples[why], count, why) for why, count in self._counts.items()]

  def leave_out(self, path: str, reason: str) -> None:
    """Counts a file or folder that is not used; `path` is below the folder."""
    self._counts[reason] += 1
    self._examples.setdefault(reason, os.path.join(self._folder, path) if path else self._folder)

  def _walk(self, inside: str, chain: list[str]) -> None:
    """Lists one folder.

    Args:
      inside: its path below the first folder, '' or with `/` at the end.
      chain: the folders on the way to it and itself, without links.
    """
    with os.scandir(self._folder + "/" + inside) as entries:
      ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
      path = inside + entry.name
      if entry.name[0] == ".":
        self.leave_out(path, "hidden, not used")
      elif _is_folder(entry):
        self._walk_into(path, entry, chain)
      elif os.path.splitext(entry.name)[1].lower() not in IMAGE_SUFFIXES:
        self._leave_out_file(path)
      elif _is_file(entry):
        self.paths.append(path)
      else:
        self.leave_out(path, "a link that leads nowhere, or no plain file, not used")

  def _walk_into(self, path: str, entry: os.DirEntry[str], chain: list[str]) -> None:
    if not self._nested:
      self.leave_out(path, "a folder, in which no images are looked for")
      return
    real = os.path.realpath(entry.path) if entry.is_symlink() else f"{chain[-1]}/{entry.name}"
    if any(f"{folder}/".startswith(f"{real.rstrip('/')}/") for folder in chain):
      self.leave_out(path, "a link that leads back to a folder around it, not followed")
      return
    try:
      self._walk(f"{path}/", [*chain, real])
    except OSError as error:
      self.leave_out(path, f"a folder that cannot be read ({error.strerror}), not used")

  def _leave_out_file(self, path: str) -> None:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _OTHER_IMAGES:
      self.other_images.append(path)
    kind = f"a {suffix} file" if suffix else "a file without an ending"
    self.leave_out(path, f"{kind}, not used; images are .jpg, .jpeg or .png")


def _is_folder(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # links in a circle
    return False


def _is_file(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_file()
  except OSError:
    return False
