"""The stem's max pool as maxima of slices.

The gradient of `reduce_window` runs on one core of a CPU: 300 ms of a 2.7 s step.
"""

import functools

import jax
import jax.numpy as jnp

from magnifier_jax.models.cpu.shift import shift


def max_pool_3x3(x: jax.Array) -> jax.Array:
  """Pools x [B, H, W, C] with a 3×3 window, stride 2 and padding 1; H and W even. Rows first."""
  return _pool_three(_pool_three(x, 1), 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool_three(x: jax.Array, axis: int) -> jax.Array:
  """Pools with a window of 3, stride 2 and padding 1 along an axis.

  The gradient goes to the first of equal maxima. It is kept which one that was, in a byte; JAX's
  own gradient would keep all three numbers.
  """
  return _winners(x, axis)[0]


def _winners(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """Returns the maxima, and uint8 0, 1 or 2: where in its window each lies."""
  even, odd = (jax.lax.slice_in_dim(x, i, None, 2, axis) for i in (0, 1))
  # Window i covers entries 2i − 1, 2i and 2i + 1; nothing lies before the first.
  before = shift(odd, 1, axis, -jnp.inf)
  maxima = jnp.maximum(jnp.maximum(before, even), odd)
  return maxima, jnp.where(before == maxima, 0, jnp.where(even == maxima, 1, 2)).astype(jnp.uint8)


def _pool_forward(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  return _winners(x, axis)


def _pool_backward(axis: int, winner: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
  to_before, to_even, to_odd = (jnp.where(winner == i, grad, 0) for i in range(3))
  to_odd += shift(to_before, -1, axis)
  both = jnp.stack([to_even, to_odd], axis + 1)
  return (both.reshape(*grad.shape[:axis], -1, *grad.shape[axis + 1 :]),)


_pool_three.defvjp(_pool_forward, _pool_backward)
