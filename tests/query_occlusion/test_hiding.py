"""Where something is hidden, and what is seen there: small cases by hand."""

import numpy as np
import pytest

from magnifier_jax.query_occlusion.hiding import bottom_mask, fill_images, other_rows, part_mask


def test_a_part_lies_where_its_cells_do():
  parts = np.array([[[1, 2], [2, 0]]], np.uint8)
  mask = part_mask(parts, 2, (4, 6))
  assert mask.astype(int).tolist() == [[[0, 0, 0, 1, 1, 1]] * 2 + [[1, 1, 1, 0, 0, 0]] * 2]
  # A larger grid gives its nearest cells; of a part that is absent nothing is hidden.
  assert part_mask(parts.repeat(3, 1), 1, (2, 2)).tolist() == [[[True, False], [False, False]]]
  assert not part_mask(parts, 7, (4, 6)).any()


@pytest.mark.parametrize(("share", "rows"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_the_bottom_is_the_lowest_rows(share: float, rows: int):
  mask = bottom_mask(2, share, (8, 3))
  assert mask.shape == (2, 8, 3)
  assert mask[:, 8 - rows :].all()
  assert mask.sum() == 2 * 3 * rows


@pytest.fixture
def images() -> np.ndarray:
  """Two images of noise."""
  return np.random.default_rng(0).integers(0, 256, (2, 8, 4, 3), np.uint8)


def test_the_mean_is_each_image_s_own(images: np.ndarray):
  seen = fill_images(images, np.arange(2), None, "mean", 0)
  assert seen.shape == images.shape
  for image, filled in zip(images, seen):
    assert filled[3, 2].tolist() == [round(float(image[..., c].mean())) for c in range(3)]
    assert (filled == filled[0, 0]).all()


def test_noise_depends_on_the_seed_and_the_row_alone(images: np.ndarray):
  seen = fill_images(images, np.array([5, 9]), None, "noise", 3)
  again = fill_images(images[:1], np.array([9]), None, "noise", 3)
  np.testing.assert_array_equal(again[0], seen[1])
  assert (seen[0] != seen[1]).any()
  assert (fill_images(images, np.array([5, 9]), None, "noise", 4) != seen).any()
  assert 100 < seen.mean() < 155
  fill_images(images, np.array([5, -1]), None, "noise", 3)  # padding


def test_a_patch_is_of_the_other_image(images: np.ndarray):
  np.testing.assert_array_equal(
    fill_images(images, np.arange(2), images[::-1], "patch", 0), images[::-1]
  )


@pytest.mark.parametrize("seed", range(5))
def test_each_image_has_another_one(seed: int):
  rows = other_rows(7, seed)
  assert sorted(rows) == list(range(7))
  assert (rows != np.arange(7)).all()
  np.testing.assert_array_equal(rows, other_rows(7, seed))
  assert len({tuple(other_rows(7, s)) for s in range(20)}) > 2
