"""Schedule and optimiser against numpy."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.optimizer import adam_with_l2, learning_rate_schedule

OPTIMIZER = Config.from_config_dict(get_config()).optimizer
STEPS_PER_EPOCH = 7


def _expected_factor(epoch: int) -> float:
  """The reference's factor of an epoch, counted from 1."""
  warmup = 0.01 + 0.99 * epoch / 10 if epoch < 10 else 1.0
  return warmup * (0.1 if epoch >= 40 else 1.0)


@pytest.mark.parametrize("epoch", [1, 2, 9, 10, 11, 39, 40, 41, 600])
def test_schedule_is_the_references(epoch: int):
  schedule = learning_rate_schedule(OPTIMIZER, STEPS_PER_EPOCH)
  first, last = (epoch - 1) * STEPS_PER_EPOCH, epoch * STEPS_PER_EPOCH - 1
  expected = 3.5e-4 * _expected_factor(epoch)
  np.testing.assert_allclose([schedule(first), schedule(last)], expected, rtol=1e-6)


def test_adam_adds_l2_to_the_gradient():
  """PyTorch's Adam(weight_decay=…), by hand."""
  tx = adam_with_l2(optax.constant_schedule(0.1), weight_decay=0.5)
  params = {"classifier": {"kernel": jnp.array([1.0, -2.0])}}
  state = tx.init(params)
  weight, mean, square = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
  for step, gradient in enumerate(([0.3, 0.1], [-0.2, 0.4], [0.0, 0.0]), start=1):
    updates, state = tx.update({"classifier": {"kernel": jnp.array(gradient)}}, state, params)
    params = optax.apply_updates(params, updates)
    decayed = np.array(gradient) + 0.5 * weight
    mean = 0.9 * mean + 0.1 * decayed
    square = 0.999 * square + 0.001 * decayed**2
    denominator = np.sqrt(square / (1 - 0.999**step)) + 1e-8
    weight = weight - 0.1 * mean / (1 - 0.9**step) / denominator
  np.testing.assert_allclose(params["classifier"]["kernel"], weight, rtol=1e-5)


def test_only_the_biases_of_bn_necks_are_frozen():
  layer = {"bias": jnp.ones(2), "scale": jnp.ones(2)}
  params = {"branch": {"bnneck": dict(layer), "part_bnneck": dict(layer), "bn1": dict(layer)}}
  tx = adam_with_l2(optax.constant_schedule(0.1), weight_decay=0.5)
  updates, _ = tx.update(params, tx.init(params), params)
  moved = {
    (module, name): bool(values.any())
    for module, arrays in updates["branch"].items()
    for name, values in arrays.items()
  }
  frozen = {where for where, has_moved in moved.items() if not has_moved}
  assert frozen == {("bnneck", "bias"), ("part_bnneck", "bias")}
