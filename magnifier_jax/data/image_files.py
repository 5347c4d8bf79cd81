"""Reads and checks the user's images and part labels, one file at a time, while preparing.

A file is good when Pillow understands its header and the decoder of training, TensorFlow's, reads
all of it; of 9,000 damaged files TensorFlow took none that Pillow refused. What is stored of a file
is such that all decoders agree on every pixel: JPEG or PNG, gray or RGB, 8 bits a channel, upright.
Most files are that already and are stored as they are.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.data.records import SourceError
from magnifier_jax.data.upright import turn_of

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# Counts the changes to what becomes of a file here: copies that were prepared otherwise are stale.
READER_VERSION = 2

IMAGE_FORMATS = ("JPEG", "MPO", "PNG")  # MPO is what Pillow calls some cameras' JPEG
_IMAGE_MODES = ("L", "RGB")  # that are stored as they are


class ImageFile(NamedTuple):
  """An image that is known to decode, to the same pixels everywhere."""

  encoded: bytes  # JPEG or PNG, gray or RGB, 8 bits a channel
  size_hw: tuple[int, int]  # pixels, upright
  turned: bool = False  # whether an EXIF orientation was applied


def read_image(path: Path) -> ImageFile:
  """Reads an image file and proves that all of it decodes; from any thread.

  An EXIF orientation is applied. The image is encoded anew, as PNG, where that or an unusual kind
  of pixels (16 bits, a palette, transparency, CMYK) asks for it.

  Raises:
    SourceError: when it is missing, truncated, unreadable, or neither JPEG nor PNG.
  """
  encoded = _read_bytes(path)
  image = _open(encoded, path, "image")
  if image.format not in IMAGE_FORMATS:
    raise SourceError(f"{path}: an image must be JPEG or PNG, this one is {image.format}")
  pixels = _decode_as_training_does(encoded, path, "image", channels=3)
  turn = turn_of(image, encoded)
  if turn is None and image.mode in _IMAGE_MODES:
    return ImageFile(encoded, (image.height, image.width))
  if turn is not None:
    pixels = np.ascontiguousarray(turn(pixels))
  return ImageFile(encode_png(pixels), pixels.shape[:2], turn is not None)


def is_plain_image(image: Image.Image, encoded: bytes) -> bool:
  """Says whether `read_image` returns a file as it is, if all of it decodes.

  Args:
    image: the file as Pillow opens it.
    encoded: the file.
  """
  return (
    image.format in IMAGE_FORMATS and image.mode in _IMAGE_MODES and turn_of(image, encoded) is None
  )


def is_plain_part_labels(image: Image.Image, encoded: bytes) -> bool:
  """Says whether `read_part_labels` returns a file as it is, if its labels are right.

  Args:
    image: the file as Pillow opens it.
    encoded: the file.
  """
  return image.format == "PNG" and image.mode == "L" and turn_of(image, encoded) is None


def decode_image(encoded: bytes) -> np.ndarray:
  """Decodes an image as `read_image` returns it, or as it was prepared; without TensorFlow.

  Returns:
    (H, W, 3) uint8 RGB, the pixels that training sees.
  """
  return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def decode_part_labels(encoded: bytes) -> np.ndarray:
  """Decodes part labels as `read_part_labels` returns them; without TensorFlow.

  Returns:
    (H, W) uint8, 0…7.
  """
  return np.asarray(Image.open(io.BytesIO(encoded)))


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
  is_wrong = labels >= NUM_PARTS
  if labels.dtype != np.uint8:
    is_wrong |= (labels < 0) | (labels != np.floor(labels))
  strays = labels[is_wrong]
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
  image = _open(encoded, path, "part-label image")
  if image.format != "PNG":
    raise SourceError(f"{path}: part labels must be PNG or .npy, these are {image.format}")
  if len(image.getbands()) != 1:
    raise SourceError(f"{path}: part labels must have one channel, these have {image.mode}")
  labels = _decode_as_training_does(encoded, path, "part-label image", channels=1)[..., 0]
  turn = turn_of(image, encoded)
  if turn is None and image.mode == "L":
    return labels, encoded
  # TensorFlow would turn a palette's indices into its colours: such files are encoded anew.
  labels = np.asarray(image)
  return labels if turn is None else turn(labels), None


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


def _open(encoded: bytes, path: Path, kind: str) -> Image.Image:
  """Reads the header of an image; its pixels are read when they are asked for."""
  try:
    return Image.open(io.BytesIO(encoded))
  except UnidentifiedImageError as error:  # whose own message shows the buffer's address
    raise _unreadable(path, kind, "of no known format" if encoded else "empty") from error
  except Exception as error:  # Pillow's parsers raise all kinds on damaged files
    raise _unreadable(path, kind, error) from error


def _decode_as_training_does(encoded: bytes, path: Path, kind: str, channels: int) -> np.ndarray:
  # Not above: prepared records are opened without TensorFlow.
  from magnifier_jax.data import image_ops

  try:
    return image_ops.decode_file(encoded, channels)
  except image_ops.DecodingError as error:
    raise _unreadable(path, kind, error) from error


def _unreadable(path: Path, kind: str, reason: object) -> SourceError:
  return SourceError(f"{path}: truncated or unreadable {kind} ({reason}); replace it")


def _size_text(shape: tuple[int, ...]) -> str:
  return " × ".join(map(str, shape))
