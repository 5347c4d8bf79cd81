"""Drawn weights that are a little different."""

import jax.numpy as jnp
import numpy as np

from benchmarks.disturbed_start import disturbed
from magnifier_jax.train_state import TrainState


def test_parameters_change_by_so_much_of_their_size_and_nothing_else_does():
  params = {"kernel": jnp.full((100, 100), 4.0), "bias": jnp.zeros(3)}
  state = TrainState(jnp.zeros((), jnp.int32), params, {"mean": jnp.ones(3)}, None)
  changed = disturbed(state, 1e-2)
  relative = np.asarray(changed.params["kernel"]) / 4 - 1
  np.testing.assert_allclose(relative.std(), 1e-2, rtol=0.05)
  np.testing.assert_allclose(relative.mean(), 0, atol=1e-3)
  assert not changed.params["bias"].any()
  assert changed.batch_stats is state.batch_stats
