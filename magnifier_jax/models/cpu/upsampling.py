"""The transposed convolution as one product and a sum of what overlaps."""

import jax
import jax.numpy as jnp


def by_overlap_add(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Doubles height and width of x [B, h, w, C] by a transposed convolution; [B, 2h, 2w, F].

  One product makes all nine taps of every pixel. On a CPU a convolution over the dilated input does
  four times the work, three quarters of it on zeros.

  Args:
    x: [B, h, w, C].
    kernel: [C, 3, 3, F]; input row i, weighted by kernel row k, goes to output row 2i + k − 1.
  """
  # Of two matrices, so that the kernel's gradient comes out as it is kept, not transposed.
  taps = x.reshape(-1, x.shape[-1]) @ kernel.reshape(kernel.shape[0], -1)
  return _overlap_add(taps.reshape(*x.shape[:-1], *kernel.shape[1:]))


@jax.custom_vjp
def _overlap_add(taps: jax.Array) -> jax.Array:
  """Adds taps [B, h, w, 3, 3, F] up into [B, 2h, 2w, F].

  With a gradient of its own, because JAX's would widen that of each tap to all nine: at batch 8
  several arrays of 21 MB when a step needs the most memory.
  """
  columns = _interleave(taps, axis=2, tap_axis=4)  # [B, h, 2w, k, F]
  return _interleave(columns, axis=1, tap_axis=3)


def _overlap_add_forward(taps: jax.Array) -> tuple[jax.Array, None]:
  return _overlap_add(taps), None


def _overlap_add_backward(_: None, grad: jax.Array) -> tuple[jax.Array]:
  height, width = grad.shape[1:3]
  padded = jnp.pad(grad, ((0, 0), (1, 0), (1, 0), (0, 0)))
  corners = [(row, column) for row in range(3) for column in range(3)]
  taps = [padded[:, i : i + height : 2, j : j + width : 2] for i, j in corners]
  stacked = jnp.stack(taps, axis=3)
  return (stacked.reshape(*stacked.shape[:3], 3, 3, -1),)


_overlap_add.defvjp(_overlap_add_forward, _overlap_add_backward)


def _interleave(taps: jax.Array, axis: int, tap_axis: int) -> jax.Array:
  """Adds three taps up into twice as many positions along `axis`; `tap_axis` goes."""
  before, centre, after = jnp.moveaxis(taps, tap_axis, 0)
  rest = jax.lax.slice_in_dim(before, 1, None, axis=axis)
  none = jnp.zeros_like(jax.lax.slice_in_dim(before, 0, 1, axis=axis))
  next_before = jnp.concatenate([rest, none], axis)
  pairs = jnp.stack([centre, after + next_before], axis=axis + 1)
  return pairs.reshape(*centre.shape[:axis], -1, *centre.shape[axis + 1 :])
