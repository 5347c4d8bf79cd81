"""Where the part labels of an image lie, and what stands in for those that nobody made."""

import functools
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.data.image_files import encode_png

# Below the folder of labels; holds those of images whose own path cannot name their labels.
_ELSEWHERE = "_elsewhere"
_UNUSUAL_START = ("/", ".", "~", _ELSEWHERE[0])
_STEM_CHARACTERS = 48  # of an image's name that stay readable; a name has at most 255 bytes


def label_folder(folder: Path) -> Path:
  """Returns the folder of a data set's part labels, EANet's layout; `folder` is the data set's."""
  return folder.with_name(f"{folder.name}_ps_label")


def label_name(image: str, clashes: frozenset[str] = frozenset()) -> str:
  """Returns where the part labels of an image lie below `label_folder`, with `/`.

  Two different images never share a place, and no place lies outside the folder.

  Args:
    image: path of the image below the data set's folder, with `/`; may lead out of it.
    clashes: see `clashing_names`.
  """
  path = _inside(image)
  if path is not None and (name := _plain_name(path)) not in clashes:
    return name
  parts = _parts(image)
  digest = hashlib.blake2b(
    os.fsencode("/" * image.startswith("/") + "/".join(parts)), digest_size=12
  )
  *folders, file = [part for part in parts if part != ".."] or [""]
  stem = os.path.splitext(file)[0][:_STEM_CHARACTERS]
  return "/".join([_ELSEWHERE, *folders, f"{stem}-{digest.hexdigest()}.png"])


def clashing_names(images: Iterable[str]) -> frozenset[str]:
  """Returns the names of labels that several images would share, as a.jpg and a.png would a.png.

  Args:
    images: paths below the data set's folder, with `/`.
  """
  first: dict[str, str] = {}
  clashes = set()
  for path in map(_inside, images):
    if path is not None and first.setdefault(name := _plain_name(path), path) != path:
      clashes.add(name)
  return frozenset(clashes)


def _parts(image: str) -> list[str]:
  return [part for part in image.split("/") if part not in ("", ".")]


def _inside(image: str) -> str | None:
  """Returns the one spelling of a path that surely lies in the data set's folder; else None."""
  if image and image[0] not in _UNUSUAL_START and "//" not in image and "/." not in image:
    return image  # most are, and there may be a million
  parts = _parts(image)
  if image.startswith("/") or ".." in parts or not parts or parts[0] in ("~", _ELSEWHERE):
    return None
  return "/".join(parts)


def _plain_name(path: str) -> str:
  dot = path.rfind(".")
  return (path[:dot] if dot > path.rfind("/") + 1 else path) + ".png"


class FoundLabels(NamedTuple):
  """The part labels of an image."""

  file: str | None  # path; None where there are none
  place: str  # path where they are looked for first


def find_part_labels(
  folder: Path, images: Sequence[str], clashes: frozenset[str] = frozenset()
) -> list[FoundLabels]:
  """Finds the part-label file of each image of a data set.

  Args:
    folder: of the data set; it need not exist.
    images: paths of images below `folder`, with `/`.
    clashes: see `clashing_names`.
  """
  # One listing a folder is far cheaper than a question a file.
  names = functools.cache(_names)
  labels = str(label_folder(folder))
  arrays = f"{folder.parent}/segmentation/{folder.name}", f"{folder}/segmentation"

  def find(image: str) -> FoundLabels:
    path = _inside(image)
    label = label_name(image, clashes)
    places = [(labels, label)]
    if path is not None:  # else an array could be of another data set
      places += [(top, f"{path}.npy") for top in arrays]
    for top, place in places:
      inside, _, name = place.rpartition("/")
      if name in names(f"{top}/{inside}"):
        return FoundLabels(f"{top}/{place}", f"{labels}/{label}")
    return FoundLabels(None, f"{labels}/{label}")

  return [find(image) for image in images]


def _names(folder: str) -> frozenset[str]:
  try:
    return frozenset(os.listdir(folder))
  except OSError:
    return frozenset()


@functools.lru_cache(maxsize=256)  # a data set has images of few sizes
def background_labels(size_hw: tuple[int, int]) -> bytes:
  """Returns part labels without a body, (H, W) uint8, as a PNG file."""
  return encode_png(np.zeros(size_hw, np.uint8))


@functools.lru_cache(maxsize=256)  # a data set has images of few sizes
def band_labels(size_hw: tuple[int, int]) -> bytes:
  """Returns the seven body parts as equal horizontal bands, head on top, as a PNG file.

  No pixel is background: where a person ends is unknown.
  """
  height, width = size_hw
  rows = 1 + np.arange(height) * (NUM_PARTS - 1) // height
  return encode_png(np.repeat(rows.astype(np.uint8)[:, None], width, axis=1))
