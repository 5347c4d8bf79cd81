"""The law of the random changes."""

import dataclasses
import math

import numpy as np
import pytest

from magnifier_jax.config import AugmentationConfig
from magnifier_jax.data.augmentation import Augmentation, draw_augmentation

CONFIG = AugmentationConfig(
  flip_probability=0.5,
  pad_pixels=3,
  erasing_probability=0.5,
  erasing_area=(0.02, 0.4),
  erasing_min_aspect=0.3,
  erasing_part_labels=False,
  brightness=0.0,
  contrast=0.0,
  saturation=0.0,
)
SIZE_HW = (128, 64)


def _draw(count: int = 4000, **changes: object) -> Augmentation:
  config = dataclasses.replace(CONFIG, **changes)
  return draw_augmentation(np.random.default_rng(0), count, SIZE_HW, config)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flips_and_erasures_are_as_frequent_as_the_config_says(probability):
  drawn = _draw(flip_probability=probability, erasing_probability=probability)
  assert abs(drawn.flip.mean() - probability) < 0.03
  assert abs((drawn.erased[:, 2] > 0).mean() - probability) < 0.03


def test_colours_have_factors_of_the_width_of_the_config():
  drawn = _draw(brightness=0.1, contrast=0.0, saturation=1.0).colour
  assert drawn.dtype == np.float32
  np.testing.assert_allclose(drawn.min(0), [0.9, 1, 0], atol=0.005)
  np.testing.assert_allclose(drawn.max(0), [1.1, 1, 2], atol=0.005)
  np.testing.assert_allclose(drawn.mean(0), 1, atol=0.03)


def test_colours_leave_the_other_draws_as_they_are():
  plain, coloured = _draw(100), _draw(100, brightness=0.5, contrast=0.5, saturation=0.5)
  assert (plain.colour == 1).all()
  assert (coloured.colour != 1).all()
  for name in ("flip", "crop", "erased"):
    np.testing.assert_array_equal(getattr(plain, name), getattr(coloured, name))


def test_crops_are_uniform_over_all_places():
  places, counts = np.unique(_draw(49 * 200).crop, axis=0, return_counts=True)
  assert places.tolist() == [[y, x] for y in range(7) for x in range(7)]
  assert abs(counts - 200).max() < 60  # four standard deviations


def test_without_padding_nothing_moves():
  assert not _draw(pad_pixels=0).crop.any()


def _erase_one_by_one(random: np.random.Generator, area, min_aspect) -> tuple[int, int, int, int]:
  """Random erasing as it is usually written."""
  height, width = SIZE_HW
  for _ in range(100):
    target = random.uniform(*area) * height * width
    aspect = random.uniform(min_aspect, 1 / min_aspect)
    h, w = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
    if h < height and w < width:
      return random.integers(0, height - h + 1), random.integers(0, width - w + 1), h, w
  return 0, 0, 0, 0


@pytest.mark.parametrize(("area", "min_aspect"), [((0.02, 0.4), 0.3), ((0.3, 0.9), 0.1)])
def test_rectangles_follow_random_erasing(area, min_aspect):
  count = 8000
  drawn = _draw(
    count, erasing_probability=1.0, erasing_area=area, erasing_min_aspect=min_aspect
  ).erased
  random = np.random.default_rng(1)
  expected = np.array([_erase_one_by_one(random, area, min_aspect) for _ in range(count)])
  share = np.linspace(0.02, 0.98, 25)
  # The largest gap between two samples' distributions passes 2.3 · √(1/8000 + 1/8000) one time in
  # ten thousand.
  for field in range(4):
    points = np.quantile(expected[:, field], share)
    gap = np.mean(drawn[:, field, None] <= points, 0) - np.mean(
      expected[:, field, None] <= points, 0
    )
    assert abs(gap).max() < 0.036, field


def test_rectangles_lie_inside_and_have_the_area_and_aspect_of_the_config():
  top, left, height, width = _draw(erasing_probability=1.0).erased.T
  assert (top >= 0).all()
  assert (left >= 0).all()
  assert (top + height <= SIZE_HW[0]).all()
  assert (left + width <= SIZE_HW[1]).all()
  area = height * width / np.prod(SIZE_HW)
  assert area.min() > 0.017  # rounding to pixels takes a little
  assert area.max() < 0.41
  assert (height / width).max() < 1.15 / 0.3
  assert (height / width).min() > 0.3 / 1.15


def test_what_never_fits_is_not_erased():
  drawn = _draw(50, erasing_probability=1.0, erasing_area=(1.0, 1.0))
  assert not drawn.erased.any()


def test_rows_of_a_batch_are_those_of_the_whole():
  drawn = _draw(10)
  for whole, rows in zip(drawn, drawn.rows(slice(4, 7))):
    np.testing.assert_array_equal(rows, whole[4:7])
