"""Finds the largest batch that a target has memory for."""

from collections.abc import Callable
from typing import NamedTuple

from magnifier_jax.compilers.estimate import OutOfMemoryError, estimate
from magnifier_jax.compilers.program import Program
from magnifier_jax.compilers.targets import Target

_MOST_IMAGES_A_CHIP = 4096
_PRECISION = 16  # the answer is within 1/16 of the largest


class Fit(NamedTuple):
  """The largest batch found, and what was tried."""

  images: int | None  # None: not even the smallest fits
  tried: dict[int, bool]  # images of the global batch → whether they fit


def largest_that_fits(fits: Callable[[int], bool], unit: int, start: int, limit: int) -> Fit:
  """Doubles, or halves, from a batch that is likely, then closes in.

  Args:
    fits: images of the global batch → whether they fit; slow, so it is asked little.
    unit: batches are multiples of it.
    start: images to begin with, rounded to a unit.
    limit: no more images than these.
  """
  tried: dict[int, bool] = {}

  def ask(units: int) -> bool:
    if units * unit not in tried:
      tried[units * unit] = fits(units * unit)
    return tried[units * unit]

  most = max(limit // unit, 1)
  low = min(max(start // unit, 1), most)
  if ask(low):
    high = low
    while high < most and ask(high):
      low, high = high, min(2 * high, most)
    if ask(high):
      return Fit(high * unit, tried)
  else:
    high = low
    while low > 1 and not ask(low):
      low, high = max(low // 2, 1), low
    if not ask(low):
      return Fit(None, tried)
  while high - low > max(low // _PRECISION, 1):
    middle = (low + high) // 2
    low, high = (middle, high) if ask(middle) else (low, middle)
  return Fit(low * unit, tried)


def largest_batch(program: Program, target: Target, say: Callable[[str], None]) -> Fit:
  """Finds the largest global batch of a program, by quick compilations.

  Args:
    program: whose own batch is where the search begins.
    target: whose devices the program's mesh has.
    say: is told about each compilation.
  """

  def fits(images: int) -> bool:
    try:
      found = estimate(program.with_images(images).lower(), target, images, quick=True)
    except OutOfMemoryError:
      say(f"  {images} images: too many")
      return False
    say(f"  {images} images: {found.memory.total / 2**30:.2f} GiB, {found.compile_seconds:.0f} s")
    return found.fits

  limit = _MOST_IMAGES_A_CHIP * target.chips
  return largest_that_fits(fits, program.unit, program.images, limit)
