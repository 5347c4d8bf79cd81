"""From what users have, files, Pillow images or arrays, to pixels as a network was trained on.

Evaluation decodes and resizes with TensorFlow. Pillow, which is used here, decodes JPEG and PNG to
the same pixels; its bilinear resize differs by at most one level of 256, since it rounds after each
axis. What tells unusual files apart from good ones is the same: see `data/image_files.py`.
"""

import collections
import concurrent.futures
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from magnifier_jax.data.image_files import IMAGE_FORMATS
from magnifier_jax.data.upright import turn_of

ImageInput: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray
"""The path of a JPEG or PNG file, a Pillow image, or pixels: (H, W, 3) or (H, W) uint8."""


_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_UNCLEAR_MODES = ("I", "F")  # gray of no known range
_TOGETHER = 8  # images that a thread loads before it hands them over, which costs as much as 20 µs


class Failure(NamedTuple):
  """An image that could not be embedded."""

  input: str  # its path, or 'image 3', counted from 0, where it has none
  reason: str

  def __str__(self) -> str:
    return f"{self.input}: {self.reason}"


class LoadedImage(NamedTuple):
  """An image of the network's size.

  Attributes:
    position: among the inputs, from 0.
    pixels: (H, W, 3) uint8 RGB.
    path: of its file; '' where it is not from one.
    sha256: of its file; '' likewise.
    turned: whether an EXIF orientation was applied.
  """

  position: int
  pixels: np.ndarray
  path: str = ""
  sha256: str = ""
  turned: bool = False


class _UnusableImageError(ValueError):
  """An image that cannot be embedded; the message says why."""


def load_ahead(
  images: Iterable[ImageInput], size_hw: tuple[int, int], ahead: int
) -> Iterator[LoadedImage | Failure]:
  """Loads images in threads, in order, a limited number of them ahead of the consumer.

  Args:
    images: any number; it is asked for no more of them than `ahead`.
    size_hw: H and W in pixels, to which all are resized.
    ahead: how many images lie ready at most.
  """
  numbered = enumerate(images)
  together = max(1, min(_TOGETHER, ahead // (2 * num_threads())))
  with concurrent.futures.ThreadPoolExecutor(num_threads()) as pool:
    queue: collections.deque[concurrent.futures.Future[list[LoadedImage | Failure]]]
    queue = collections.deque()

    def submit(count: int) -> None:
      if some := list(itertools.islice(numbered, count)):
        queue.append(pool.submit(_load_some, some, size_hw))

    try:
      for _ in range(ahead // together):
        submit(together)
      while queue:
        loaded = queue.popleft().result()
        submit(together)
        yield from loaded
    finally:
      for future in queue:
        future.cancel()


def _load_some(
  numbered: Sequence[tuple[int, ImageInput]], size_hw: tuple[int, int]
) -> list[LoadedImage | Failure]:
  return [load(image, position, size_hw) for position, image in numbered]


def num_threads() -> int:
  """Returns how many images are decoded at once: one for each core of this process."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load(image: ImageInput, position: int, size_hw: tuple[int, int]) -> LoadedImage | Failure:
  """Loads one image, or says why it cannot be.

  Args:
    image: see `ImageInput`.
    position: among the inputs, from 0.
    size_hw: H and W in pixels.
  """
  is_file = isinstance(image, str | os.PathLike)
  path = os.fspath(image) if is_file else ""
  try:
    if is_file:
      encoded = _read(path)
      upright, turned = _upright(_open(encoded))
      sha256 = hashlib.sha256(encoded).hexdigest()
      return LoadedImage(position, _resized(upright, size_hw), path, sha256, turned)
    if isinstance(image, Image.Image):
      upright, turned = _upright(image)
      return LoadedImage(position, _resized(upright, size_hw), turned=turned)
    return LoadedImage(position, resize(_array(image), size_hw))
  except _UnusableImageError as error:
    return Failure(path or f"image {position}", str(error))


def decode(encoded: bytes) -> tuple[np.ndarray, bool]:
  """Decodes a JPEG or PNG file of any kind of pixels to the upright RGB image that it shows.

  Transparency is dropped, and of 16 bits the upper 8 are kept, as the decoder of training does.

  Returns:
    (H, W, 3) uint8 and whether an EXIF orientation was applied.

  Raises:
    ValueError: says what is wrong with the file.
  """
  image, turned = _upright(_open(encoded))
  return np.asarray(image), turned


def resize(pixels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
  """Resizes (h, w, 3) uint8 bilinearly to (H, W, 3), with a wider filter where it shrinks."""
  if pixels.shape[:2] == tuple(size_hw):
    return pixels
  return _resized(Image.fromarray(np.ascontiguousarray(pixels)), size_hw)


def _resized(image: Image.Image, size_hw: tuple[int, int]) -> np.ndarray:
  """Returns an RGB image as `resize` does."""
  height, width = size_hw
  return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _read(path: str) -> bytes:
  try:
    with open(path, "rb") as file:
      return file.read()
  except OSError as error:
    raise _UnusableImageError(f"cannot be read: {error.strerror or error}") from error
  except ValueError as error:  # a NUL in the name
    raise _UnusableImageError(f"no file can have this name: {error}") from error


def _open(encoded: bytes) -> Image.Image:
  if not encoded:
    raise _UnusableImageError("the file is empty")
  image = _guarded(lambda: Image.open(io.BytesIO(encoded)))
  if image.format not in IMAGE_FORMATS:
    raise _UnusableImageError(f"an image must be JPEG or PNG, this one is {image.format}")
  return image


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
  """Returns a Pillow image as upright RGB, and whether it was turned."""
  rgb = _guarded(lambda: _rgb(image))
  turn = turn_of(image)
  if turn is None:
    return rgb, False
  return Image.fromarray(np.ascontiguousarray(turn(np.asarray(rgb)))), True


def _rgb(image: Image.Image) -> Image.Image:
  if image.mode in _UNCLEAR_MODES:
    raise _UnusableImageError(
      f"Pillow's mode {image.mode} has no fixed range of values; convert it to L or RGB"
    )
  image.load()
  if not all(image.size):
    raise _UnusableImageError("it has no pixels")
  if image.mode == "RGB":
    return image
  if image.mode in _SIXTEEN_BITS:
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  return image.convert("RGB")


def _guarded(read: Callable):
  """Returns what `read` does; Pillow's parsers raise all kinds of errors on damaged files."""
  try:
    return read()
  except _UnusableImageError:
    raise
  except Image.UnidentifiedImageError as error:
    raise _UnusableImageError("not an image file, or a damaged one") from error
  except Exception as error:
    reason = str(error).partition("\n")[0] or type(error).__name__
    raise _UnusableImageError(f"truncated or unreadable image ({reason})") from error


def _array(image: np.ndarray) -> np.ndarray:
  """Returns an array as (H, W, 3); gray is repeated, transparency dropped."""
  if not isinstance(image, np.ndarray):
    raise _UnusableImageError(
      f"a {type(image).__name__} is no image; a path, a Pillow image or an array is wanted"
    )
  channels = image.shape[2] if image.ndim == 3 else 1
  if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3, 4):
    raise _UnusableImageError(
      f"an array must be RGB or gray, (H, W, 3) or (H, W) uint8, this one is {image.dtype} of "
      f"shape {image.shape}"
    )
  if not image.size:
    raise _UnusableImageError(f"it has no pixels, its shape is {image.shape}")
  if channels == 1:
    return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
  return image[..., :3]
