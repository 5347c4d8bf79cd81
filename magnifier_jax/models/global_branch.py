"""The global branch: stage 4 pooled, by its average or a generalised mean."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.models.layers import BatchNorm, classifier, param_dtype_of


class GlobalOutput(NamedTuple):
  """Outputs of the global branch."""

  features: jax.Array  # [B, D] before the BN neck, for the triplet loss
  embedding: jax.Array  # [B, D] after the BN neck
  logits: jax.Array  # [B, N]


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
    self.power = nnx.Param(jnp.full((1,), self.initial_power, param_dtype_of(dtype)))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Pools x [B, h, w, C] ≥ 0 to [B, C]."""
    power = self.power[...].squeeze()
    x = jnp.maximum(x.astype(power.dtype), self.epsilon)
    return (x**power).mean(axis=(1, 2)) ** (1 / power)


class GlobalBranch(nnx.Module):
  """Pool → BN neck → classifier.

  Args:
    features: D, channels of stage 4.
    num_people: N, identities of the training set.
    pooling: 'average' or 'gem'.
    dtype: of the arithmetic.
    rngs: with a `params` stream.
  """

  def __init__(
    self, features: int, num_people: int, *, pooling: str, dtype: jnp.dtype, rngs: nnx.Rngs
  ):
    self.dtype = dtype
    self.pool = GeneralizedMean(dtype=dtype) if pooling == "gem" else None
    self.bnneck = BatchNorm(features, dtype=dtype)
    self.classifier = classifier(features, num_people, dtype=dtype, rngs=rngs)

  def __call__(self, stage4: jax.Array, train: bool) -> GlobalOutput:
    """Embeds stage4 [B, h, w, D]."""
    if self.pool is None:
      pooled = stage4.mean(axis=(1, 2), dtype=param_dtype_of(self.dtype))
    else:
      pooled = self.pool(stage4)
    embedding = self.bnneck(pooled, train)
    return GlobalOutput(pooled, embedding, self.classifier(embedding))
