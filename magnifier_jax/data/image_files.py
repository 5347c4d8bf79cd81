"""Reads and checks the user's images and part labels, one file at a time, while preparing."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.data.records import SourceError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class ImageFile(NamedTuple):
  """An image file that is known to decode."""

  encoded: bytes
  size_hw: tuple[int, int]  # pixels


def read_image(path: Path) -> ImageFile:
  """Reads an image file and proves that all of it decodes.

  Raises:
    SourceError: when it is missing, truncated, unreadable, or neither JPEG nor PNG.
  """
  encoded = _read_bytes(path)
  image = _decode(encoded, path, "image")
  if image.format not in ("JPEG", "MPO", "PNG"):  # MPO is what Pillow calls some cameras' JPEG
    raise SourceError(f"{path}: an image must be JPEG or PNG, this one is {image.format}")
  return ImageFile(encoded, (image.height, image.width))


def read_part_labels(path: Path, size_hw: tuple[int, int]) -> bytes:
  """Reads the part labels of one image.

  Args:
    path: a PNG of one channel (gray or palette) or an `.npy` array (H, W).
    size_hw: height and width of the image, in pixels.

  Returns:
    A gray PNG file of the same labels, (H, W, 1) uint8, values 0…7.

  Raises:
    SourceError: when the file is unreadable, of another size, or has a value outside 0…7.
  """
  labels, encoded = _load(path)
  if labels.shape != size_hw:
    raise SourceError(
      f"{path}: part labels are {_size_text(labels.shape)} but the image is {_size_text(size_hw)} "
      "(height × width); they must have the image's size"
    )
  strays = labels[(labels < 0) | (labels >= NUM_PARTS) | (labels != np.floor(labels))]
  if strays.size:
    raise SourceError(
      f"{path}: part label {strays[0]} found; labels are whole numbers from 0 (background) to "
      f"{NUM_PARTS - 1}"
    )
  return encoded or encode_png(labels.astype(np.uint8))


def load_part_labels(path: Path) -> np.ndarray:
  """Reads an array of labels of any classes and size.

  Args:
    path: a PNG of one channel (gray or palette) or an `.npy` array.

  Returns:
    What the file holds, of any shape and dtype; a PNG is (H, W).

  Raises:
    SourceError: when the file is unreadable or has several channels.
  """
  labels, _ = _load(path)
  return labels


def is_part_labels(content: bytes) -> bool:
  """Says whether a file's content is a PNG of part labels: one channel, values 0…7."""
  try:
    image = Image.open(io.BytesIO(content))
    return (
      image.format == "PNG"
      and len(image.getbands()) == 1
      and np.asarray(image).max(initial=0) < NUM_PARTS
    )
  except (OSError, SyntaxError, ValueError):
    return False


def encode_png(pixels: np.ndarray) -> bytes:
  """Returns (H, W) or (H, W, 3) uint8 as a PNG file."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "PNG")
  return buffer.getvalue()


def _load(path: Path) -> tuple[np.ndarray, bytes | None]:
  return _load_npy(path) if path.suffix == ".npy" else _load_png(path)


def _load_png(path: Path) -> tuple[np.ndarray, bytes | None]:
  """Returns the labels, and the file itself where it can be stored as it is."""
  encoded = _read_bytes(path)
  image = _decode(encoded, path, "part-label image")
  if len(image.getbands()) != 1:
    raise SourceError(f"{path}: part labels must have one channel, these have {image.mode}")
  # TensorFlow would turn a palette's indices into its colours: such files are encoded anew.
  keep = image.format == "PNG" and image.mode == "L"
  return np.asarray(image), encoded if keep else None


def _load_npy(path: Path) -> tuple[np.ndarray, None]:
  try:
    return np.load(path, allow_pickle=False), None
  except (ValueError, OSError, EOFError) as error:
    raise SourceError(f"{path}: not a readable part-label array: {error}") from error


def _read_bytes(path: Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise SourceError(f"{path}: cannot be read ({error.strerror})") from error


def _decode(encoded: bytes, path: Path, kind: str) -> Image.Image:
  try:
    image = Image.open(io.BytesIO(encoded))
    image.load()
  except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three on damaged files
    raise SourceError(f"{path}: truncated or unreadable {kind} ({error}); replace it") from error
  return image


def _size_text(shape: tuple[int, ...]) -> str:
  return " × ".join(map(str, shape))
