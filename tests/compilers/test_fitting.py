"""The search for the largest batch."""

import pytest

from magnifier_jax.compilers.fitting import largest_that_fits


@pytest.mark.parametrize("largest", [8, 72, 200, 1000, 1024])
@pytest.mark.parametrize("start", [8, 64, 4000])
def test_it_is_found_within_a_sixteenth(largest: int, start: int):
  fit = largest_that_fits(lambda images: images <= largest, 8, start, 10_000)
  assert fit.images % 8 == 0
  assert largest - max(fit.images // 16, 8) <= fit.images <= largest
  assert fit.tried[fit.images]
  assert len(fit.tried) <= 16


def test_nothing_fits():
  fit = largest_that_fits(lambda images: False, 8, 64, 10_000)
  assert fit.images is None
  assert min(fit.tried) == 8


def test_all_that_is_allowed_fits():
  assert largest_that_fits(lambda images: True, 8, 64, 1000).images == 1000
