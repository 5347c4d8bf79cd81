"""The part segmentation head, which replaces a human parser in evaluation."""

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.models.layers import BatchNorm, param_dtype_of, tiny_normal


class Upsample(nnx.Module):
  """A 3×3 transposed convolution that doubles height and width, without bias.

  PyTorch's `ConvTranspose2d(3, stride=2, padding=1, output_padding=1)`: input row i, weighted by
  kernel row k, is added to output row 2i + k − 1. One product makes all nine taps of every pixel;
  a convolution over the dilated input would do four times the work, three quarters of it on zeros.

  Args:
    in_features: C.
    features: F.
    dtype: of the arithmetic.
    rngs: with a `params` stream.
  """

  def __init__(self, in_features: int, features: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    self.dtype = dtype
    kernel = tiny_normal(rngs.params(), (in_features, 3, 3, features), param_dtype_of(dtype))
    self.kernel = nnx.Param(kernel)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, h, w, C] to [B, 2h, 2w, F]."""
    kernel = self.kernel[...].astype(self.dtype)
    # Of two matrices, so that the kernel's gradient comes out as it is kept, not transposed.
    taps = x.reshape(-1, x.shape[-1]) @ kernel.reshape(kernel.shape[0], -1)
    return _overlap_add(taps.reshape(*x.shape[:-1], *kernel.shape[1:]))

  def at_even_pixels(self, x: jax.Array) -> jax.Array:
    """Returns rows and columns 0, 2, 4, … of the result, [B, h, w, F], for a ninth of the work.

    Nothing but the kernel's middle reaches them.
    """
    return jnp.einsum("BhwC,CF->BhwF", x, self.kernel[:, 1, 1].astype(self.dtype))


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


class PartSegmentationHead(nnx.Module):
  """3×3 transposed convolution ×2 up → BN → ReLU → 1×1.

  Args:
    in_features: channels of stage 4.
    features: channels in between; 256 in the reference.
    dtype: of the arithmetic.
    rngs: with a `params` stream.
  """

  def __init__(self, in_features: int, *, features: int, dtype: jnp.dtype, rngs: nnx.Rngs):
    param_dtype = param_dtype_of(dtype)
    self.upsample = Upsample(in_features, features, dtype=dtype, rngs=rngs)
    self.bn = BatchNorm(features, dtype=dtype)
    self.classifier = nnx.Linear(
      features,
      NUM_PARTS,
      kernel_init=tiny_normal,
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )

  def __call__(self, stage4: jax.Array, train: bool) -> jax.Array:
    """Maps stage4 [B, h, w, C] to part logits [B, 2h, 2w, S]."""
    return self._classify(self.upsample(stage4), train)

  def on_grid(self, stage4: jax.Array) -> jax.Array:
    """Returns the logits that nearest-neighbour resizing to stage4's grid keeps, [B, h, w, S].

    In evaluation only: statistics of a batch are those of all pixels.
    """
    return self._classify(self.upsample.at_even_pixels(stage4), train=False)

  def _classify(self, x: jax.Array, train: bool) -> jax.Array:
    return self.classifier(jax.nn.relu(self.bn(x, train)))
