"""The part segmentation head, which replaces a human parser in evaluation."""

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.models.layers import BatchNorm, param_dtype_of, tiny_normal
from magnifier_jax.models.parts import NUM_PARTS


class PartSegmentationHead(nnx.Module):
  """3×3 transposed convolution ×2 up → BN → ReLU → 1×1.

  Args:
    in_features: channels of stage 4.
    features: channels in between; 256 in the reference.
    dtype: of the arithmetic.
    rngs: with a `params` stream.
  """

  def __init__(self, in_features: int, *, features: int = 256, dtype: jnp.dtype, rngs: nnx.Rngs):
    param_dtype = param_dtype_of(dtype)
    # PyTorch's ConvTranspose2d(3, stride=2, padding=1, output_padding=1), kernel mirrored.
    self.upsample = nnx.ConvTranspose(
      in_features,
      features,
      (3, 3),
      strides=(2, 2),
      padding=((1, 2), (1, 2)),
      use_bias=False,
      kernel_init=tiny_normal,
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )
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
    return self.classifier(jax.nn.relu(self.bn(self.upsample(stage4), train)))
