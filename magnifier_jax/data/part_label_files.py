"""Where the part labels of an image lie, and what stands in for those that nobody made."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.data.image_files import encode_png


def find_part_labels(folder: Path, images: Sequence[str]) -> list[Path | None]:
  """Finds the part-label file of each image of a data set.

  Args:
    folder: of the data set; it need not exist.
    images: paths of images below `folder`, with `/`.

  Returns:
    The first of `possible_part_labels` that exists; None where none does.
  """
  # One listing a folder is far cheaper than a question a file.
  names = functools.cache(lambda place: frozenset(file.name for file in place.glob("*")))
  return [
    next(
      (file for file in possible_part_labels(folder, image) if file.name in names(file.parent)),
      None,
    )
    for image in images
  ]


def possible_part_labels(folder: Path, image: str) -> Iterator[Path]:
  """Yields where the part labels of an image may lie, in the order of preference.

  These are EANet's layout, then the arrays of the authors' code beside the data set or inside it.
  """
  yield folder.with_name(f"{folder.name}_ps_label") / PurePosixPath(image).with_suffix(".png")
  yield folder.parent / "segmentation" / folder.name / f"{image}.npy"
  yield folder / "segmentation" / f"{image}.npy"


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
