"""Pooling by a mean between the average and the maximum."""

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.models.layers import wide_dtype_of


class GeneralizedMean(nnx.Module):
  """(mean of xᵖ)^(1/p) of each channel, GeM; p is learnt.

  Radenović et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019. p = 1 is
  the average, a large p nears the maximum. Activations below 1e-6 count as 1e-6, as in the authors'
  code: logarithms and negative powers of 0 would be infinite. It is computed in at least float32,
  where 1e-6 to the power of 6 is a normal number.

  Args:
    dtype: of the network's arithmetic.
  """

  epsilon = 1e-6
  initial_power = 3.0

  def __init__(self, *, dtype: jnp.dtype):
    self.power = nnx.Param(jnp.full((1,), self.initial_power, wide_dtype_of(dtype)))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pools x [B, h, w, C] ≥ 0 to [B, C]."""
    power = self.power[...].squeeze()
    x = jnp.maximum(x.astype(power.dtype), self.epsilon)
    return (x**power).mean(axis=(1, 2)) ** (1 / power)
