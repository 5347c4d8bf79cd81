"""Pixels for a network: those of evaluation's decoder, from whatever users have."""

import io
import itertools
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from magnifier_jax.data import image_files, image_ops
from magnifier_jax.retrieval import images
from magnifier_jax.retrieval.images import Failure, LoadedImage, load, load_ahead
from tests.data.unusual_images import KINDS, picture, save

SIZE_HW = (32, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_files_decode_as_evaluation_decodes_them(tmp_path: Path, kind: str):
  """The prepared copy has what TensorFlow decoded."""
  encoded, _ = KINDS[kind](picture())
  file = tmp_path / "image.png"
  file.write_bytes(encoded)
  expected = image_files.decode_image(image_files.read_image(file).encoded)
  pixels, turned = images.decode(encoded)
  assert not turned
  difference = np.abs(pixels.astype(int) - expected)
  assert difference.max() <= (1 if kind == "jpeg, cmyk" else 0)


@pytest.mark.parametrize("source_hw", [(286, 97), (100, 40), (30, 100), (1, 1), SIZE_HW])
@pytest.mark.parametrize("size_hw", [(128, 64), SIZE_HW])
def test_images_are_resized_as_evaluation_resizes_them(source_hw, size_hw):
  pixels = np.random.default_rng(0).integers(0, 256, (*source_hw, 3), np.uint8)
  encoded = save(Image.fromarray(pixels), "PNG")
  expected = image_ops.evaluation_image(encoded, size_hw).numpy()
  difference = np.abs(images.resize(pixels, size_hw).astype(int) - expected)
  assert difference.max() <= 1
  assert difference.mean() < 0.3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path: Path, orientation: int):
  exif = Image.Exif()
  exif[0x0112] = orientation
  file = tmp_path / "turned.jpg"
  file.write_bytes(save(Image.fromarray(picture()), "JPEG", exif=exif))
  expected = np.asarray(ImageOps.exif_transpose(Image.open(file)))
  size_hw = expected.shape[:2]
  from_file, from_pillow = load(str(file), 0, size_hw), load(Image.open(file), 0, size_hw)
  assert from_file.turned == from_pillow.turned == (orientation > 1)
  np.testing.assert_array_equal(from_file.pixels, expected)
  np.testing.assert_array_equal(from_pillow.pixels, expected)


def test_one_picture_in_every_form_is_one_image(tmp_path: Path):
  pixels = picture()
  file = tmp_path / "picture.png"
  file.write_bytes(save(Image.fromarray(pixels), "PNG"))
  alpha = np.dstack([pixels, np.arange(48 * 20, dtype=np.uint8).reshape(48, 20)])
  forms = [str(file), file, Image.open(file), pixels, alpha, Image.fromarray(alpha), pixels[:, :]]
  loaded = list(load_ahead(forms, SIZE_HW, ahead=3))
  assert [image.position for image in loaded] == list(range(len(forms)))
  for image in loaded:
    np.testing.assert_array_equal(image.pixels, loaded[0].pixels)
  assert [bool(image.path) for image in loaded] == [True, True, *[False] * 5]
  assert loaded[0].sha256 == loaded[1].sha256 != loaded[2].sha256 == ""
  gray = pixels[..., 0]
  for image in load_ahead([gray, gray[..., None], Image.fromarray(gray)], SIZE_HW, ahead=1):
    np.testing.assert_array_equal(image.pixels, images.resize(np.dstack([gray] * 3), SIZE_HW))


def _truncated(tmp_path: Path) -> Path:
  whole = save(Image.fromarray(picture()).resize((200, 300)), "JPEG")
  (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
  return tmp_path / "half.jpg"


def _file(name: str, content: bytes):
  def write(tmp_path: Path) -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name

  return write


@pytest.mark.parametrize(
  ("make", "reason"),
  [
    (_truncated, "truncated"),
    (_file("empty.jpg", b""), "the file is empty"),
    (_file("text.png", b"no image"), "not an image file"),
    (_file("a.bmp", save(Image.fromarray(picture()), "BMP")), "JPEG or PNG, this one is BMP"),
    (lambda folder: folder, "cannot be read: Is a directory"),
    (lambda folder: folder / "missing.jpg", "cannot be read: No such file"),
    (lambda _: "a\0b.jpg", "no file can have this name"),
    (lambda _: np.zeros((4, 4, 3), np.float32), "uint8, this one is float32 of shape"),
    (lambda _: np.zeros((4, 4, 2), np.uint8), "of shape \\(4, 4, 2\\)"),
    (lambda _: np.zeros((0, 4, 3), np.uint8), "no pixels"),
    (lambda _: Image.new("I", (4, 4)), "mode I has no fixed range"),
    (lambda _: 7, "a int is no image"),
  ],
)
def test_what_is_no_image_has_a_reason_and_ends_nothing(tmp_path: Path, make, reason: str):
  good = picture()
  before, failure, after = load_ahead([good, make(tmp_path), good], SIZE_HW, ahead=2)
  assert isinstance(before, LoadedImage)
  assert isinstance(after, LoadedImage)
  assert isinstance(failure, Failure)
  assert re.search(reason, failure.reason), failure
  assert "\n" not in str(failure)


def test_no_more_images_are_asked_for_than_lie_ready():
  asked = itertools.count()
  last = 0

  def endless():
    nonlocal last
    while True:
      last = next(asked)
      yield picture()

  loading = load_ahead(endless(), SIZE_HW, ahead=5)
  assert next(loading).position == 0
  assert last <= 5
  threads = threading.active_count()
  loading.close()
  assert threading.active_count() < threads


def test_an_error_of_the_iterator_is_the_users():
  def broken():
    yield picture()
    raise RuntimeError("the camera is gone")

  with pytest.raises(RuntimeError, match="the camera is gone"):
    list(load_ahead(broken(), SIZE_HW, ahead=1))


def test_sixteen_bit_images_of_pillow_keep_their_upper_byte():
  pixels = picture()[..., 0].astype(np.uint16) * 256 + 99
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "PNG")
  image = load(Image.open(buffer), 0, pixels.shape)
  np.testing.assert_array_equal(image.pixels[..., 0], picture()[..., 0])
