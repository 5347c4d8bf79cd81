"""The part segmentation head, which replaces a human parser in evaluation."""

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.models.cpu.upsampling import by_overlap_add
from magnifier_jax.models.layers import BatchNorm, tiny_normal, wide_dtype_of
from magnifier_jax.models.platforms import cpu_or_default


class Upsample(nnx.Module):
  """A 3×3 transposed convolution that doubles height and width, without bias.

  PyTorch's `ConvTranspose2d(3, stride=2, padding=1, output_padding=1)`: input row i, weighted by
  kernel row k, is added to output row 2i + k − 1.

  Args:
    in_features: C.
    features: F.
    dtype: of the arithmetic.
    rngs: with a `params` stream.
  """

  def __init__(self, in_features: int, features: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    self.dtype = dtype
    kernel = tiny_normal(rngs.params(), (in_features, 3, 3, features), wide_dtype_of(dtype))
    self.kernel = nnx.Param(kernel)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, h, w, C] to [B, 2h, 2w, F]."""
    kernel = self.kernel[...].astype(self.dtype)
    return upsample(x, kernel)

  def at_even_pixels(self, x: jax.Array) -> jax.Array:
    """Returns rows and columns 0, 2, 4, … of the result, [B, h, w, F], for a ninth of the work.

    Nothing but the kernel's middle reaches them.
    """
    return jnp.einsum("BhwC,CF->BhwF", x, self.kernel[:, 1, 1].astype(self.dtype))


def upsample(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves x [B, h, w, C], transposed, with kernel [C, 3, 3, F]; returns [B, 2h, 2w, F]."""
  return cpu_or_default(x, kernel, cpu=by_overlap_add, default=_by_library)


def _by_library(x: jax.Array, kernel: jax.Array) -> jax.Array:
  # A transposed convolution is one over x with zeros in between, its kernel turned round.
  return jax.lax.conv_general_dilated(
    x,
    kernel[:, ::-1, ::-1],
    window_strides=(1, 1),
    padding=((1, 2), (1, 2)),
    lhs_dilation=(2, 2),
    dimension_numbers=("NHWC", "IHWO", "NHWC"),
  )


class PartSegmentationHead(nnx.Module):
  """3×3 transposed convolution ×2 up → BN → ReLU → 1×1.

  Args:
    in_features: channels of stage 4.
    features: channels in between; 256 in the reference.
    dtype: of the convolutions; the logits are in at least float32.
    rngs: with a `params` stream.
  """

  def __init__(self, in_features: int, *, features: int, dtype: jnp.dtype, rngs: nnx.Rngs):
    param_dtype = wide_dtype_of(dtype)
    self.upsample = Upsample(in_features, features, dtype=dtype, rngs=rngs)
    self.bn = BatchNorm(features, dtype=dtype)
    self.classifier = nnx.Linear(
      features,
      NUM_PARTS,
      kernel_init=tiny_normal,
      dtype=dtype,
      param_dtype=param_dtype,
      # Or the bias's gradient would sum all pixels of a batch in bfloat16.
      preferred_element_type=param_dtype,
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
