"""Image files of every kind that people have, all of one picture."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

SIZE_HW = (48, 20)
# Where each pass of an interlaced PNG starts, and in which steps it goes on: rows, then columns.
_ADAM7 = (
  (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)
)  # fmt: skip


def picture() -> np.ndarray:
  """Returns a smooth picture, (48, 20, 3) uint8, none of whose turns are alike."""
  small = np.random.default_rng(0).integers(0, 256, (6, 3, 3), np.uint8)
  return np.asarray(Image.fromarray(small).resize(SIZE_HW[::-1], Image.Resampling.BICUBIC))


def save(image: Image.Image, file_format: str, **options: object) -> bytes:
  """Returns an image as a file."""
  buffer = io.BytesIO()
  image.save(buffer, file_format, **options)
  return buffer.getvalue()


def write_png(samples: np.ndarray, interlaced: bool = False, gamma: bool = False) -> bytes:
  """Returns (H, W, 1 or 3) uint8 or uint16 as a PNG of kinds that Pillow cannot write."""
  height, width, channels = samples.shape
  depth, colour = 8 * samples.itemsize, {1: 0, 3: 2}[channels]
  header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
  passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
  parts = [samples[top::down, left::right] for top, left, down, right in passes]
  parts = [part.astype(samples.dtype.newbyteorder(">")) for part in parts if part.size]
  lines = (b"\0" + line.tobytes() for part in parts for line in part)
  chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")]
  if gamma:
    chunks.insert(1, (b"gAMA", struct.pack(">I", 100_000)))
  return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
  return (
    struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
  )


def _sixteen_bits(pixels: np.ndarray) -> np.ndarray:
  """Returns samples of 16 bits whose upper bytes are those of `pixels`."""
  return pixels.astype(np.uint16) * 256 + 77


def _with_alpha(pixels: np.ndarray) -> Image.Image:
  alpha = np.random.default_rng(1).integers(0, 256, (*pixels.shape[:2], 1), np.uint8)
  return Image.fromarray(np.concatenate([pixels, alpha], axis=-1))


def _gray(pixels: np.ndarray) -> np.ndarray:
  return np.repeat(pixels[..., :1], 3, axis=-1)


def _few_colours(pixels: np.ndarray) -> Image.Image:
  return Image.fromarray(pixels).quantize(16)


def _black_and_white(pixels: np.ndarray) -> Image.Image:
  return Image.fromarray(pixels[..., 0] > 127)


Made = tuple[bytes, np.ndarray]  # the file, and the pixels that it holds


def _png(make: Callable[[np.ndarray], bytes], shows: Callable = lambda pixels: pixels) -> Callable:
  return lambda pixels: (make(pixels), shows(pixels))


def _jpeg(mode: str = "RGB", **options: object) -> Callable[[np.ndarray], Made]:
  def make(pixels: np.ndarray) -> Made:
    image = Image.fromarray(pixels).convert(mode)
    file_format = options.pop("format", "JPEG")
    return save(image, file_format, quality=95, **options), np.asarray(image.convert("RGB"))

  return make


def _mpo(pixels: np.ndarray) -> Made:
  other = Image.fromarray(255 - pixels)
  image = Image.fromarray(pixels)
  return save(image, "MPO", save_all=True, append_images=[other], quality=95), pixels


def _animated(pixels: np.ndarray) -> Made:
  other = Image.fromarray(255 - pixels)
  return save(Image.fromarray(pixels), "PNG", save_all=True, append_images=[other]), pixels


# kind → function from the picture, (H, W, 3) uint8, to `Made`
KINDS: dict[str, Callable[[np.ndarray], Made]] = {
  "png": _png(lambda p: save(Image.fromarray(p), "PNG")),
  "png, gray": _png(lambda p: save(Image.fromarray(p[..., 0]), "PNG"), _gray),
  "png, gray, 16 bits": _png(lambda p: write_png(_sixteen_bits(p[..., :1])), _gray),
  "png, 16 bits": _png(lambda p: write_png(_sixteen_bits(p))),
  "png, interlaced": _png(lambda p: write_png(p, interlaced=True)),
  "png, gray, 16 bits, interlaced": _png(
    lambda p: write_png(_sixteen_bits(p[..., :1]), interlaced=True), _gray
  ),
  "png, with gamma": _png(lambda p: write_png(p, gamma=True)),
  "png, palette": _png(
    lambda p: save(_few_colours(p), "PNG"), lambda p: np.asarray(_few_colours(p).convert("RGB"))
  ),
  "png, palette with transparency": _png(
    lambda p: save(_few_colours(p), "PNG", transparency=3),
    lambda p: np.asarray(_few_colours(p).convert("RGB")),
  ),
  "png, gray with transparency": _png(
    lambda p: save(Image.fromarray(p[..., 0]), "PNG", transparency=int(p[0, 0, 0])), _gray
  ),
  "png, transparency": _png(
    lambda p: save(Image.fromarray(p), "PNG", transparency=tuple(map(int, p[0, 0])))
  ),
  "png, alpha": _png(lambda p: save(_with_alpha(p), "PNG")),
  "png, gray and alpha": _png(lambda p: save(_with_alpha(p[..., :1]), "PNG"), _gray),
  "png, 1 bit": _png(
    lambda p: save(_black_and_white(p), "PNG"),
    lambda p: np.asarray(_black_and_white(p).convert("RGB")),
  ),
  "png, animated": _animated,
  "jpeg": _jpeg(),
  "jpeg, gray": _jpeg("L"),
  "jpeg, cmyk": _jpeg("CMYK"),
  "jpeg, progressive": _jpeg(progressive=True),
  "jpeg, rgb": _jpeg(keep_rgb=True),
  "jpeg, full chroma": _jpeg(subsampling=0),
  "jpeg, two pictures": _mpo,
}
