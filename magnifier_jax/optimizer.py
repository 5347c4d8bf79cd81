"""Learning-rate schedules, Adam with coupled L2, frozen parameters, averages of weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from magnifier_jax.config import OptimizerConfig
from magnifier_jax.train_state import Weights


def learning_rate_schedule(
  config: OptimizerConfig, steps_per_epoch: int, num_epochs: int
) -> optax.Schedule:
  """Returns step → learning rate, of the config's schedule.

  Args:
    config: the rate, and how it changes.
    steps_per_epoch: updates in an epoch.
    num_epochs: of the whole run; only 'cosine' depends on it.
  """
  if config.schedule == "cosine":
    return _cosine(config, steps_per_epoch, num_epochs)
  return _by_epoch(config, steps_per_epoch)


def _by_epoch(config: OptimizerConfig, steps_per_epoch: int) -> optax.Schedule:
  """Constant within an epoch, as in the reference.

  Epochs count from 1. While epoch e < `warmup_epochs` W the factor is f + (1 − f) · e / W, with f
  the `warmup_factor`; from each of `decay_epochs` on it is multiplied by `decay_factor`.
  """

  def schedule(step: jax.Array) -> jax.Array:
    epoch = step // steps_per_epoch + 1
    factor = jnp.ones(())
    for decay_epoch in config.decay_epochs:
      factor *= jnp.where(epoch >= decay_epoch, config.decay_factor, 1.0)
    if config.warmup_epochs:
      progress = epoch / config.warmup_epochs
      warmup = config.warmup_factor + (1 - config.warmup_factor) * progress
      factor *= jnp.where(epoch < config.warmup_epochs, warmup, 1.0)
    return config.learning_rate * factor

  return schedule


def _cosine(config: OptimizerConfig, steps_per_epoch: int, num_epochs: int) -> optax.Schedule:
  """Changes with every step: short runs have few epochs.

  The factor rises in a line from f, the `warmup_factor`, to 1 over `warmup_epochs` W, then falls as
  ½ (1 + cos πt), with t from 0 there to 1 after the last step (Loshchilov & Hutter, ICLR 2017,
  without restarts).
  """
  warmup_steps = config.warmup_epochs * steps_per_epoch
  falling_steps = num_epochs * steps_per_epoch - warmup_steps

  def schedule(step: jax.Array) -> jax.Array:
    falling = jnp.cos(jnp.pi * (step - warmup_steps) / falling_steps) / 2 + 0.5
    rising = config.warmup_factor + (1 - config.warmup_factor) * step / max(warmup_steps, 1)
    return config.learning_rate * jnp.where(step < warmup_steps, rising, falling)

  return schedule


def is_frozen(path: tuple[str, ...]) -> bool:
  """Whether the parameter at `path` is never updated: the biases of the BN necks."""
  return path[-1] == "bias" and path[-2] in ("bnneck", "part_bnneck")


def has_l2(path: tuple[str, ...]) -> bool:
  """Whether the parameter at `path` is drawn to 0: all but the power of a generalised mean."""
  return path[-1] != "power"


def adam_with_l2(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
  """Returns Adam whose L2 term is added to the gradient, as PyTorch's `Adam(weight_decay=…)`.

  Not AdamW: the decay passes through the moments. Parameters for which `is_frozen` holds are left
  as they are, and those without `has_l2` get no such term.
  """
  adam = optax.chain(
    optax.stateless(lambda grads, params: _with_l2(grads, params, weight_decay)),
    optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
    optax.scale_by_learning_rate(schedule),
  )
  return optax.partition({"trained": adam, "frozen": optax.set_to_zero()}, _labels)


def _with_l2(grads: Any, params: Any, weight_decay: float) -> Any:
  def added(path: tuple, grad: jax.Array, param: jax.Array) -> jax.Array:
    return grad + weight_decay * param if has_l2(_names(path)) else grad

  return jax.tree_util.tree_map_with_path(added, grads, params)


def _labels(params: dict[str, Any]) -> dict[str, Any]:
  def label(path: tuple, _: jax.Array) -> str:
    return "frozen" if is_frozen(_names(path)) else "trained"

  return jax.tree_util.tree_map_with_path(label, params)


def _names(path: tuple) -> tuple[str, ...]:
  return tuple(key.key for key in path)


def averaged(average: Weights, weights: Weights, updates: jax.Array, decay: float) -> Weights:
  """Returns the moving average of the weights after one more update.

  The first weights are drawn, and would stay in the average for long. So update u has the decay
  min(`decay`, (1 + u) / (10 + u)), as TensorFlow's `ExponentialMovingAverage` with `num_updates`.

  Args:
    average: before; that of no update is the drawn weights.
    weights: after the update.
    updates: u, [] int32, updates done with this one.
    decay: share of the old average that stays in the long run.
  """
  kept = jnp.minimum(decay, (1 + updates) / (10 + updates))
  return jax.tree.map(lambda old, new: new + (old - new) * kept.astype(new.dtype), average, weights)
