"""Trains as main does, from drawn weights that differ a little: what chance does to a result.

  python -m benchmarks.disturbed_start 1e-3 --config=configs/synthetic.py --config.seed=0

Each drawn parameter is multiplied by 1 + RELATIVE · z, with z standard normal and the same in every
run. Nothing that matters to training has changed, so the difference to the undisturbed run of the
same seed is the least that a change of the code, of a dtype or of a machine can be told by.
"""

import sys

import jax
import numpy as np

from magnifier_jax import main, train
from magnifier_jax.train_state import TrainState
from magnifier_jax.train_step import Trainer, draw_state


def disturbed(state: TrainState, relative: float) -> TrainState:
  """Returns a run's first state with its parameters changed by so much of their size."""
  random = np.random.default_rng(7)

  def change(array: jax.Array) -> jax.Array:
    factor = 1 + relative * random.standard_normal(array.shape)
    return jax.device_put((np.asarray(array) * factor).astype(array.dtype), array.sharding)

  return state._replace(params=jax.tree.map(change, state.params))


def _run(relative: float) -> None:
  def draw(trainer: Trainer, seed: int) -> TrainState:
    return disturbed(draw_state(trainer, seed), relative)

  train.draw_state = draw
  main.cli()


if __name__ == "__main__":
  if len(sys.argv) < 3:
    sys.exit(__doc__)
  _run(float(sys.argv.pop(1)))
