"""What the check passes, training reads; and every reader sees the same pixels, upright."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from magnifier_jax.data import image_files, image_ops
from magnifier_jax.data.records import SourceError

from .unusual_images import KINDS, SIZE_HW, picture, save, write_png

ORIENTATION = 0x0112
DAMAGES = 100


def _write(folder: Path, encoded: bytes) -> Path:
  file = folder / "image.png"  # what a file is, its bytes say
  file.write_bytes(encoded)
  return file


def _trained_on(encoded: bytes) -> np.ndarray:
  """Decodes a file as the pipeline does, which the resize to the same size leaves as it is."""
  height, width, _ = image_files.decode_image(encoded).shape
  return image_ops.evaluation_image(encoded, (height, width)).numpy()


@pytest.mark.parametrize("size_hw", [SIZE_HW, (1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_sees_the_pixels_of_a_file(tmp_path, kind, size_hw):
  encoded, expected = KINDS[kind](picture()[: size_hw[0], : size_hw[1]])
  image = image_files.read_image(_write(tmp_path, encoded))
  assert (image.size_hw, image.turned) == (size_hw, False)
  seen = _trained_on(image.encoded)
  np.testing.assert_array_equal(seen, image_files.decode_image(image.encoded))
  difference = np.abs(seen.astype(int) - expected)
  assert difference.max() <= (24 if kind.startswith("jpeg") else 0)
  assert difference.mean() < 4


@pytest.mark.parametrize("kind", ["png", "png, gray", "png, interlaced", "jpeg", "jpeg, gray"])
def test_usual_files_are_stored_as_they_are(tmp_path, kind):
  encoded, _ = KINDS[kind](picture())
  assert image_files.read_image(_write(tmp_path, encoded)).encoded == encoded


def _turned(orientation: int, file_format: str) -> tuple[bytes, np.ndarray]:
  """Returns a file with an orientation, and the pixels that people see."""
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  encoded = save(Image.fromarray(picture()), file_format, exif=exif)
  seen = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)).convert("RGB"))
  return encoded, np.asarray(seen)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_orientation_is_applied(tmp_path, orientation, file_format):
  encoded, expected = _turned(orientation, file_format)
  image = image_files.read_image(_write(tmp_path, encoded))
  assert (image.size_hw, image.turned) == (expected.shape[:2], True)
  np.testing.assert_array_equal(_trained_on(image.encoded), expected)
  np.testing.assert_array_equal(image_files.decode_image(image.encoded), expected)


@pytest.mark.parametrize("orientation", [0, 1, 9, 77])
def test_an_orientation_that_turns_nothing_changes_nothing(tmp_path, orientation):
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  encoded = save(Image.fromarray(picture()), "JPEG", exif=exif)
  image = image_files.read_image(_write(tmp_path, encoded))
  assert (image.encoded, image.turned) == (encoded, False)


def test_damaged_exif_data_do_not_hide_an_image(tmp_path):
  exif = Image.Exif()
  exif[ORIENTATION] = 6
  encoded = bytearray(save(Image.fromarray(picture()), "JPEG", exif=exif))
  start = encoded.index(b"Exif\0\0") + 6
  random = np.random.default_rng(0)
  for _ in range(DAMAGES):
    encoded[start : start + 8] = random.bytes(8)
    image = image_files.read_image(_write(tmp_path, bytes(encoded)))
    assert image.size_hw in (SIZE_HW, SIZE_HW[::-1])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_part_labels_with_an_orientation_are_turned(tmp_path, orientation):
  labels = np.random.default_rng(0).integers(0, 8, SIZE_HW, np.uint8)
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  encoded = save(Image.fromarray(labels), "PNG", exif=exif)
  expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
  stored = image_files.read_part_labels(_write(tmp_path, encoded), expected.shape)
  np.testing.assert_array_equal(image_files.decode_part_labels(stored), expected)
  np.testing.assert_array_equal(image_ops.decode_file(stored, 1)[..., 0], expected)


def _palette(labels: np.ndarray) -> Image.Image:
  image = Image.fromarray(labels, "P")
  image.putpalette(np.random.default_rng(2).integers(0, 256, 24).tolist())
  return image


@pytest.mark.parametrize(
  "encode",
  [
    lambda labels: save(Image.fromarray(labels), "PNG"),
    lambda labels: save(_palette(labels), "PNG"),
    lambda labels: save(Image.fromarray(labels), "PNG", transparency=0),
    lambda labels: write_png(labels[..., None], interlaced=True),
    lambda labels: write_png(labels[..., None].astype(np.uint16)),
  ],
  ids=["gray", "palette", "transparency", "interlaced", "16 bits"],
)
def test_every_reader_sees_the_same_part_labels(tmp_path, encode):
  labels = np.random.default_rng(0).integers(0, 8, SIZE_HW, np.uint8)
  stored = image_files.read_part_labels(_write(tmp_path, encode(labels)), SIZE_HW)
  np.testing.assert_array_equal(image_files.decode_part_labels(stored), labels)
  np.testing.assert_array_equal(image_ops.decode_file(stored, 1)[..., 0], labels)


def test_part_labels_that_are_no_png_are_refused(tmp_path):
  file = _write(tmp_path, save(Image.fromarray(np.zeros(SIZE_HW, np.uint8)), "JPEG"))
  with pytest.raises(SourceError, match=r"must be PNG or \.npy, these are JPEG"):
    image_files.read_part_labels(file, SIZE_HW)


def _flip_a_bit(encoded: bytes, random: np.random.Generator) -> bytes:
  damaged = bytearray(encoded)
  damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
  return bytes(damaged)


def _cut(encoded: bytes, random: np.random.Generator) -> bytes:
  return encoded[: random.integers(len(encoded))]


def _flip_a_checksum(encoded: bytes, random: np.random.Generator) -> bytes:
  start = encoded.index(b"IDAT")
  end = start + 4 + int.from_bytes(encoded[start - 4 : start], "big")
  damaged = bytearray(encoded)
  damaged[end + random.integers(4)] ^= 1 << random.integers(8)
  return bytes(damaged)


def _read_or_refuse(read: Callable[..., Any], file: Path, *arguments: Any) -> Any:
  """Returns what `read` makes of a file, or None where it refuses the file in one line."""
  try:
    return read(file, *arguments)
  except SourceError as error:
    message = str(error)
  assert message.startswith(f"{file}: ")
  assert "\n" not in message
  return None


@pytest.mark.parametrize("damage", [_flip_a_bit, _cut])
@pytest.mark.parametrize(
  "kind", ["png", "png, palette", "png, gray, 16 bits", "jpeg", "jpeg, progressive"]
)
def test_training_reads_what_the_check_passes(tmp_path, kind, damage: Callable):
  encoded, _ = KINDS[kind](picture())
  random = np.random.default_rng(0)
  for _ in range(DAMAGES):
    file = _write(tmp_path, damage(encoded, random))
    image = _read_or_refuse(image_files.read_image, file)
    if image is not None:
      assert _trained_on(image.encoded).shape == (*image.size_hw, 3)
      assert image_files.decode_image(image.encoded).shape == (*image.size_hw, 3)


@pytest.mark.parametrize("damage", [_flip_a_bit, _cut, _flip_a_checksum])
def test_training_reads_the_part_labels_that_the_check_passes(tmp_path, damage: Callable):
  labels = np.random.default_rng(0).integers(0, 8, SIZE_HW, np.uint8)
  encoded = save(Image.fromarray(labels), "PNG")
  random = np.random.default_rng(0)
  refused = 0
  for _ in range(DAMAGES):
    file = _write(tmp_path, damage(encoded, random))
    stored = _read_or_refuse(image_files.read_part_labels, file, SIZE_HW)
    if stored is None:
      refused += 1
    else:
      np.testing.assert_array_equal(
        image_ops.decode_file(stored, 1)[..., 0], image_files.decode_part_labels(stored)
      )
  assert refused > DAMAGES / 2


@pytest.mark.parametrize("kind", ["png", "png, palette", "png, gray, 16 bits", "png, alpha"])
def test_a_damaged_checksum_of_a_png_is_refused(tmp_path, kind):
  encoded, _ = KINDS[kind](picture())
  file = _write(tmp_path, _flip_a_checksum(encoded, np.random.default_rng(0)))
  with pytest.raises(SourceError, match="truncated or unreadable image"):
    image_files.read_image(file)
