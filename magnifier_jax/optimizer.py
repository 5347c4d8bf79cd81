"""Learning-rate schedule by epoch, Adam with coupled L2, frozen parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from magnifier_jax.config import OptimizerConfig


def learning_rate_schedule(config: OptimizerConfig, steps_per_epoch: int) -> optax.Schedule:
  """Returns step → learning rate; constant within an epoch, as in the reference.

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


def is_frozen(path: tuple[str, ...]) -> bool:
  """Whether the parameter at `path` is never updated: the biases of the BN necks."""
  return path[-1] == "bias" and path[-2] in ("bnneck", "part_bnneck")


def adam_with_l2(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
  """Returns Adam whose L2 term is added to the gradient, as PyTorch's `Adam(weight_decay=…)`.

  Not AdamW: the decay passes through the moments. Parameters for which `is_frozen` holds are left
  as they are.
  """
  adam = optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
    optax.scale_by_learning_rate(schedule),
  )
  return optax.partition({"trained": adam, "frozen": optax.set_to_zero()}, _labels)


def _labels(params: dict[str, Any]) -> dict[str, Any]:
  def label(path: tuple, _: jax.Array) -> str:
    return "frozen" if is_frozen(tuple(key.key for key in path)) else "trained"

  return jax.tree_util.tree_map_with_path(label, params)
