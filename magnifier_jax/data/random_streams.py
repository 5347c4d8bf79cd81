"""Stateless random numbers: a generator is a function of the run's seed, a purpose and a position.

Nothing carries a state from batch to batch, so any batch can be drawn alone, on any process.
"""

import enum

import numpy as np


class Purpose(enum.IntEnum):
  """What numbers are drawn for; streams of different purposes are independent."""

  IDENTITY_ORDER = 0
  IMAGE_ORDER = 1
  EXTRA_IMAGES = 2
  AUGMENTATION = 3
  OCCLUSION = 4
  VALIDATION_PEOPLE = 5
  DATASET_ORDER = 6


def generator(seed: int, purpose: Purpose, *position: int) -> np.random.Generator:
  """Returns the generator of one stream, in its initial state.

  Args:
    seed: of the run, from 0 to 2**63 - 1.
    purpose: what the numbers are for.
    position: up to three numbers from 0 (a pass, an identity, a step) that tell streams apart.
  """
  # Philox counts up in the first word of its counter; the others are free to name the stream.
  counter = [0, *position, *[0] * (3 - len(position))]
  return np.random.Generator(np.random.Philox(key=[seed, int(purpose)], counter=counter))
