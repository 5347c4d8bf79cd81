"""Pixels: agreement with Pillow, and labels that stay on what they name."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from magnifier_jax.config import DataConfig
from magnifier_jax.data import image_ops
from magnifier_jax.data.augmentation import draw_augmentation

SIZE_HW = (64, 32)
PALETTE = np.random.default_rng(3).permutation(np.arange(24) * 10 + 10).reshape(8, 3)


@pytest.fixture
def config(make_config) -> DataConfig:
  """64 × 32 images, padded by 9."""
  return make_config(data__augmentation__pad_pixels=9).data


def _encode(pixels: np.ndarray, file_format: str = "PNG") -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(pixels.astype(np.uint8)).save(buffer, file_format, quality=90)
  return buffer.getvalue()


def _smooth_noise(size_hw: tuple[int, int]) -> np.ndarray:
  small = np.random.default_rng(0).integers(0, 256, (9, 5, 3), np.uint8)
  return np.asarray(Image.fromarray(small).resize(size_hw[::-1], Image.Resampling.BICUBIC))


def _change(flip=False, crop=(9, 9), erased=(0, 0, 0, 0), colour=(1, 1, 1)) -> image_ops.Change:
  """Returns a change; the default crop gives the image back as it was."""
  return image_ops.Change(
    np.array(colour, np.float32),
    np.bool_(flip),
    np.array(crop, np.int32),
    np.array(erased, np.int32),
  )


def _random_changes(count: int, config: DataConfig) -> list[image_ops.Change]:
  drawn = draw_augmentation(np.random.default_rng(0), count, SIZE_HW, config.augmentation)
  return [image_ops.Change(*row) for row in zip(*drawn)]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_files_decode_as_pillow_decodes_them(file_format):
  encoded = _encode(_smooth_noise(SIZE_HW), file_format)
  expected = np.asarray(Image.open(io.BytesIO(encoded)))
  np.testing.assert_array_equal(image_ops.evaluation_image(encoded, SIZE_HW), expected)


@pytest.mark.parametrize("source_hw", [(286, 97), (100, 40), (30, 100), (41, 17)])
@pytest.mark.parametrize("size_hw", [(128, 64), (384, 192)])
def test_images_are_resized_as_pillow_resizes_them(source_hw, size_hw):
  random = np.random.default_rng(0)
  pixels = random.integers(0, 256, (*source_hw, 3), np.uint8)
  expected = Image.fromarray(pixels).resize(size_hw[::-1], Image.Resampling.BILINEAR)
  resized = image_ops.evaluation_image(_encode(pixels), size_hw).numpy()
  difference = abs(resized.astype(int) - np.asarray(expected))
  assert difference.max() <= 1
  assert difference.mean() < 0.3


def test_gray_images_get_three_channels():
  gray = np.arange(64 * 32).reshape(SIZE_HW) % 256
  image = image_ops.evaluation_image(_encode(gray), SIZE_HW)
  np.testing.assert_array_equal(image, np.stack([gray] * 3, axis=-1))


def test_labels_stay_on_the_pixels_that_they_name(config):
  """Colours encode labels, so every change can be checked from the image that comes out."""
  labels = np.random.default_rng(1).integers(0, 8, SIZE_HW)
  image, part_labels = _encode(PALETTE[labels]), _encode(labels)
  flips = 0
  for change in _random_changes(40, config):
    changed = image_ops.training_image(image, change._replace(erased=np.zeros(4, np.int32)), config)
    carried = image_ops.training_part_labels(part_labels, change, config).numpy()
    assert (carried.shape, carried.dtype) == ((8, 4), np.uint8)
    # The eighth of the image by nearest neighbour, from its pixels.
    sampled = changed.numpy()[4::8, 4::8]
    padding = (sampled == 0).all(-1)
    np.testing.assert_array_equal(carried[padding], 0)
    np.testing.assert_array_equal(PALETTE[carried[~padding]], sampled[~padding])
    flips += bool(change.flip)
  assert 5 < flips < 35


def test_labels_of_another_size_are_resized_with_their_image(config):
  """Source of any size: labels are those of the full-size chain, done step by step in Pillow."""
  labels = np.random.default_rng(1).integers(0, 8, (45, 19)).astype(np.uint8)
  for change in _random_changes(40, config):
    resized = Image.fromarray(labels).resize(SIZE_HW[::-1], Image.Resampling.NEAREST)
    full = np.asarray(resized)[:, :: -1 if change.flip else 1]
    top, left = change.crop
    full = np.pad(full, config.augmentation.pad_pixels)[top : top + 64, left : left + 32]
    expected = Image.fromarray(full).resize((4, 8), Image.Resampling.NEAREST)
    carried = image_ops.training_part_labels(_encode(labels), change, config)
    np.testing.assert_array_equal(carried, np.asarray(expected))


def test_bilinear_labels_are_the_rounded_mean_of_the_middle_four(config):
  config = dataclasses.replace(config, part_label_resize="bilinear")
  labels = np.random.default_rng(1).integers(0, 8, SIZE_HW)
  middle = labels.reshape(8, 8, 4, 8)[:, 3:5, :, 3:5].mean(axis=(1, 3))
  carried = image_ops.training_part_labels(_encode(labels), _change(), config)
  np.testing.assert_array_equal(carried, np.rint(middle))


def test_padding_is_black_and_background(config):
  image, labels = np.full((*SIZE_HW, 3), 200), np.full(SIZE_HW, 5)
  change = _change(crop=(0, 18))  # down by 9, left by 9
  expected = np.zeros((*SIZE_HW, 3))
  expected[9:, :-9] = 200
  np.testing.assert_array_equal(image_ops.training_image(_encode(image), change, config), expected)
  carried = image_ops.training_part_labels(_encode(labels), change, config)
  np.testing.assert_array_equal(carried, np.where(expected[4::8, 4::8, 0], 5, 0))


@pytest.mark.parametrize(
  "factors", [(0.7, 1, 1), (1, 0.6, 1), (1, 1.2, 1), (1, 1, 0), (1, 1, 1.4), (0.9, 0.7, 1.2)]
)
def test_colours_change_as_pillow_changes_them(factors):
  pixels = _smooth_noise(SIZE_HW) // 2 + 50  # nothing is clipped on the way
  expected = Image.fromarray(pixels)
  for enhance, factor in zip(
    (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors
  ):
    expected = enhance(expected).enhance(factor)
  changed = image_ops.change_colours(pixels, np.array(factors, np.float32)).numpy()
  assert (
    np.abs(changed.astype(int) - np.asarray(expected)).max() <= 3
  )  # Pillow cuts fractions off, thrice
  assert np.abs(changed.astype(int) - pixels).max() > 5


def test_colours_without_a_change_and_far_beyond_the_range():
  pixels = np.random.default_rng(0).integers(0, 256, (*SIZE_HW, 3), np.uint8)
  same = image_ops.change_colours(pixels, np.ones(3, np.float32))
  np.testing.assert_array_equal(same, pixels)
  bright = image_ops.change_colours(pixels, np.array([100, 1, 1], np.float32)).numpy()
  np.testing.assert_array_equal(bright[pixels > 2], 255)
  np.testing.assert_array_equal(bright[pixels == 0], 0)


def test_colours_change_before_padding_and_erasing(config):
  augmentation = dataclasses.replace(config.augmentation, brightness=0.5)
  image = np.full((*SIZE_HW, 3), 200)
  change = _change(crop=(0, 18), erased=(40, 0, 10, 5), colour=(0.5, 1, 1))
  expected = np.zeros((*SIZE_HW, 3))
  expected[9:, :-9] = 100
  expected[40:50, :5] = (124, 116, 104)
  changed = dataclasses.replace(config, augmentation=augmentation)
  np.testing.assert_array_equal(image_ops.training_image(_encode(image), change, changed), expected)
  unchanged = image_ops.training_image(_encode(image), change, config).numpy()
  assert (unchanged[20, 10] == 200).all()


@pytest.mark.parametrize("labels_too", [False, True])
def test_the_erased_rectangle_has_the_mean_colour(config, labels_too):
  config = dataclasses.replace(
    config, augmentation=dataclasses.replace(config.augmentation, erasing_part_labels=labels_too)
  )
  image, labels = _smooth_noise(SIZE_HW), np.full(SIZE_HW, 5)
  change = _change(flip=True, erased=(10, 3, 30, 20))
  erased = np.zeros(SIZE_HW, bool)
  erased[10:40, 3:23] = True
  expected = np.where(erased[..., None], (124, 116, 104), image[:, ::-1])
  np.testing.assert_array_equal(image_ops.training_image(_encode(image), change, config), expected)
  carried = image_ops.training_part_labels(_encode(labels), change, config)
  np.testing.assert_array_equal(carried, np.where(erased[4::8, 4::8] & labels_too, 0, 5))
