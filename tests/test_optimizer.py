"""Schedules, the optimiser and averages of weights against numpy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.optimizer import adam_with_l2, averaged, learning_rate_schedule
from magnifier_jax.train_state import Weights

OPTIMIZER = Config.from_config_dict(get_config()).optimizer
STEPS_PER_EPOCH = 7


def _expected_factor(epoch: int) -> float:
  """The reference's factor of an epoch, counted from 1."""
  warmup = 0.01 + 0.99 * epoch / 10 if epoch < 10 else 1.0
  return warmup * (0.1 if epoch >= 40 else 1.0)


@pytest.mark.parametrize("epoch", [1, 2, 9, 10, 11, 39, 40, 41, 600])
def test_schedule_is_the_references(epoch: int):
  schedule = learning_rate_schedule(OPTIMIZER, STEPS_PER_EPOCH, num_epochs=600)
  first, last = (epoch - 1) * STEPS_PER_EPOCH, epoch * STEPS_PER_EPOCH - 1
  expected = 3.5e-4 * _expected_factor(epoch)
  np.testing.assert_allclose([schedule(first), schedule(last)], expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("step", "factor"),
  [
    (0, 0.1),  # 2 epochs of 7 steps rise from the warm-up's factor to 1
    (7, 0.55),
    (13, 0.1 + 0.9 * 13 / 14),
    (14, 1.0),
    (14 + 14, 0.75),  # 6 epochs of 7 steps fall
    (14 + 21, 0.5),
    (14 + 28, 0.25),
    (14 + 41, 0.5 * (1 + np.cos(np.pi * 41 / 42))),
  ],
)
def test_cosine_rises_and_falls_with_every_step(step: int, factor: float):
  config = dataclasses.replace(
    OPTIMIZER, schedule="cosine", learning_rate=0.2, warmup_epochs=2, warmup_factor=0.1
  )
  schedule = learning_rate_schedule(config, STEPS_PER_EPOCH, num_epochs=8)
  np.testing.assert_allclose(schedule(jnp.int32(step)), 0.2 * factor, rtol=1e-5, atol=1e-7)


def test_cosine_without_a_warmup_starts_at_the_rate():
  config = dataclasses.replace(OPTIMIZER, schedule="cosine", warmup_epochs=0)
  schedule = learning_rate_schedule(config, STEPS_PER_EPOCH, num_epochs=8)
  np.testing.assert_allclose(schedule(jnp.int32(0)), OPTIMIZER.learning_rate, rtol=1e-6)


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


def test_the_power_of_a_generalised_mean_is_trained_without_l2():
  params = {"global_branch": {"pool": {"power": jnp.full((1,), 3.0)}, "conv": {"kernel": 3.0}}}
  tx = adam_with_l2(optax.constant_schedule(0.1), weight_decay=0.5)
  for gradient, moves in ((0.0, [False, True]), (1.0, [True, True])):
    grads = {
      "global_branch": {"pool": {"power": jnp.full((1,), gradient)}, "conv": {"kernel": gradient}}
    }
    updates, _ = tx.update(grads, tx.init(params), params)
    branch = updates["global_branch"]
    assert [bool(branch["pool"]["power"] != 0), bool(branch["conv"]["kernel"] != 0)] == moves


def test_average_forgets_the_first_weights_and_ends_at_the_decay():
  """Of statistics as of parameters; the decays are (1 + u) / (10 + u) until that is above 0.4."""
  average = Weights({"kernel": jnp.zeros(2)}, {"mean": jnp.ones(1)})
  kernel, mean = np.zeros(2), np.ones(1)
  for update, decay in enumerate((2 / 11, 3 / 12, 4 / 13, 5 / 14, 0.4, 0.4), start=1):
    new = Weights({"kernel": jnp.array([1.0, update])}, {"mean": jnp.array([-float(update)])})
    average = averaged(average, new, jnp.int32(update), decay=0.4)
    kernel = decay * kernel + (1 - decay) * np.array([1.0, update])
    mean = decay * mean - (1 - decay) * update
    np.testing.assert_allclose(average.params["kernel"], kernel, rtol=1e-6)
    np.testing.assert_allclose(average.batch_stats["mean"], mean, rtol=1e-6)


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
