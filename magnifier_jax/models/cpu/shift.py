"""Shifts along an axis, for windows that overlap."""

import jax
import jax.numpy as jnp


def shift(x: jax.Array, by: int, axis: int, filling: float = 0) -> jax.Array:
  """Moves entries by ±1 along an axis; `filling` comes in at one end, the other end is lost."""
  padding = [(0, 0, 0)] * x.ndim
  padding[axis] = (by, -by, 0)
  return jax.lax.pad(x, jnp.asarray(filling, x.dtype), padding)
