"""When XLA computes what: an order where its own would keep more in memory."""

import jax


def not_before(other: jax.Array, x: jax.Array) -> jax.Array:
  """Returns x, of which nothing is computed before `other` is known.

  XLA computes what it can as soon as it can, also what only the gradient needs, and keeps it. On a
  CPU it drops `optimization_barrier`, so x is added 0 · the first entry of `other`.
  """
  first = jax.lax.slice(other, (0,) * other.ndim, (1,) * other.ndim)
  return x + 0 * first.reshape((1,) * x.ndim)
