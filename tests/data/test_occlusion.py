"""The draw of occluded parts and the mask that they leave."""

import itertools

import numpy as np
import pytest

from magnifier_jax.body_parts import PARTS
from magnifier_jax.config import OcclusionConfig
from magnifier_jax.data.occlusion import draw_kept_parts, keep_mask

REFERENCE = OcclusionConfig(upper_parts=2, lower_parts=1, keep_background=True, per_image=False)
PER_IMAGE = OcclusionConfig(upper_parts=2, lower_parts=1, keep_background=True, per_image=True)


def _occluded(kept_parts: np.ndarray) -> tuple[int, ...]:
  return tuple(np.flatnonzero(kept_parts == 0))


def test_one_draw_a_batch_is_shared_by_its_images():
  for seed in range(20):
    kept = draw_kept_parts(np.random.default_rng(seed), 5, REFERENCE)
    assert kept.shape == (5, len(PARTS))
    assert kept.dtype == np.uint8
    assert len({_occluded(row) for row in kept}) == 1


def test_all_sets_of_two_upper_and_one_lower_part_are_equally_likely():
  kept = draw_kept_parts(np.random.default_rng(0), 18_000, PER_IMAGE)
  sets, counts = np.unique([_occluded(row) for row in kept], axis=0, return_counts=True)
  pairs = itertools.combinations((1, 2, 3, 4), 2)
  assert sets.tolist() == [[*pair, low] for pair in pairs for low in (5, 6, 7)]
  assert abs(counts - 1000).max() < 130  # four standard deviations


@pytest.mark.parametrize(("upper", "lower"), [(0, 0), (4, 3), (1, 2), (3, 0)])
def test_as_many_parts_are_drawn_as_the_config_says(upper, lower):
  config = OcclusionConfig(upper, lower, keep_background=True, per_image=True)
  kept = draw_kept_parts(np.random.default_rng(0), 30, config)
  assert (kept[:, 0] == 1).all()
  assert ((kept[:, 1:5] == 0).sum(1) == upper).all()
  assert ((kept[:, 5:] == 0).sum(1) == lower).all()


def test_the_background_goes_where_the_config_drops_it():
  config = OcclusionConfig(2, 1, keep_background=False, per_image=True)
  kept = draw_kept_parts(np.random.default_rng(0), 30, config)
  assert (kept[:, 0] == 0).all()
  assert ((kept == 0).sum(1) == 4).all()


def test_the_mask_is_zero_exactly_where_an_occluded_part_lies():
  random = np.random.default_rng(0)
  labels = random.integers(0, 8, (4, 12, 6), np.uint8)
  kept = draw_kept_parts(random, 4, PER_IMAGE)
  mask = keep_mask(labels, kept)
  assert (mask.shape, mask.dtype) == ((4, 6, 3), np.uint8)
  for b, y, x in np.ndindex(mask.shape):
    assert mask[b, y, x] == (labels[b, 2 * y, 2 * x] not in _occluded(kept[b]))
