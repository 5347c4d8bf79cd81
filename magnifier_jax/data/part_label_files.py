"""Where the part labels of an image lie, and what stands in for those that nobody made."""

import functools
import hashlib
import os.path
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.data.image_files import encode_png

# Below the folder of labels; holds those of images whose own path cannot name their labels.
_ELSEWHERE = "_elsewhere"
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
  parts = _parts(image)
  name = _plain_name(image, parts)
  if name is not None and name not in clashes:
    return name
  path = "/" * image.startswith("/") + "/".join(parts)
  digest = hashlib.blake2b(os.fsencode(path), digest_size=12).hexdigest()
  *folders, file = [part for part in parts if part != ".."] or [""]
  stem = os.path.splitext(file)[0][:_STEM_CHARACTERS]
  return "/".join([_ELSEWHERE, *folders, f"{stem}-{digest}.png"])


def clashing_names(images: Iterable[str]) -> frozenset[str]:
  """Returns the names of labels that several images would share, as a.jpg and a.png would a.png.

  Args:
    images: paths below the data set's folder, with `/`.
  """
  first: dict[str, list[str]] = {}
  clashes = set()
  for image in images:
    parts = _parts(image)
    name = _plain_name(image, parts)
    if name is not None and first.setdefault(name, parts) != parts:
      clashes.add(name)
  return frozenset(clashes)


def _parts(image: str) -> list[str]:
  return [part for part in image.split("/") if part not in ("", ".")]


def _plain_name(image: str, parts: Sequence[str]) -> str | None:
  """Returns the path with the ending .png; None where that could lie outside, or be another's."""
  if image.startswith("/") or ".." in parts or not parts or parts[0] == _ELSEWHERE:
    return None
  return os.path.splitext("/".join(parts))[0] + ".png"


def find_part_labels(
  folder: Path, images: Sequence[str], clashes: frozenset[str] = frozenset()
) -> list[Path | None]:
  """Finds the part-label file of each image of a data set.

  Args:
    folder: of the data set; it need not exist.
    images: paths of images below `folder`, with `/`.
    clashes: see `clashing_names`.

  Returns:
    The first of `possible_part_labels` that exists; None where none does.
  """
  # One listing a folder is far cheaper than a question a file.
  names = functools.cache(lambda place: frozenset(file.name for file in place.glob("*")))
  return [
    next(
      (
        file
        for file in possible_part_labels(folder, image, clashes)
        if file.name in names(file.parent)
      ),
      None,
    )
    for image in images
  ]


def possible_part_labels(
  folder: Path, image: str, clashes: frozenset[str] = frozenset()
) -> Iterator[Path]:
  """Yields where the part labels of an image may lie, in the order of preference.

  These are EANet's layout, then the arrays of the authors' code beside the data set or inside it.
  """
  yield label_folder(folder) / label_name(image, clashes)
  parts = _parts(image)
  if _plain_name(image, parts) is not None:  # else an array could be of another data set
    inside = "/".join(parts)
    yield folder.parent / "segmentation" / folder.name / f"{inside}.npy"
    yield folder / "segmentation" / f"{inside}.npy"


def background_labels(size_hw: tuple[int, int]) -> bytes:
  """Returns part labels without a body, (H, W) uint8, as a PNG file."""
  return encode_png(np.zeros(size_hw, np.uint8))


def band_labels(size_hw: tuple[int, int]) -> bytes:
  """Returns the seven body parts as equal horizontal bands, head on top, as a PNG file.

  No pixel is background: where a person ends is unknown.
  """
  height, width = size_hw
  rows = 1 + np.arange(height) * (NUM_PARTS - 1) // height
  return encode_png(np.repeat(rows.astype(np.uint8)[:, None], width, axis=1))
