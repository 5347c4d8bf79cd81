"""The global branch: stage 4 pooled, by its average or a generalised mean."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.models.generalized_mean import GeneralizedMean
from magnifier_jax.models.layers import BatchNorm, classifier, wide_dtype_of


class GlobalOutput(NamedTuple):
  """Outputs of the global branch."""

  features: jax.Array  # [B, D] before the BN neck, for the triplet loss
  embedding: jax.Array  # [B, D] after the BN neck
  logits: jax.Array  # [B, N]


class GlobalBranch(nnx.Module):
  """Pool → BN neck → classifier.

  Args:
    features: D, channels of stage 4.
    num_people: N, identities of the training set.
    pooling: 'average' or 'gem'.
    dtype: of the network's convolutions; all here is in at least float32.
    rngs: with a `params` stream.
  """

  def __init__(
    self, features: int, num_people: int, *, pooling: str, dtype: jnp.dtype, rngs: nnx.Rngs
  ):
    self.wide_dtype = wide_dtype_of(dtype)
    self.pool = GeneralizedMean(dtype=dtype) if pooling == "gem" else None
    self.bnneck = BatchNorm(features, dtype=self.wide_dtype)
    self.classifier = classifier(features, num_people, dtype=self.wide_dtype, rngs=rngs)

  def __call__(self, stage4: jax.Array, train: bool) -> GlobalOutput:
    """Embeds stage4 [B, h, w, D]."""
    if self.pool is None:
      pooled = stage4.mean(axis=(1, 2), dtype=self.wide_dtype)
    else:
      pooled = self.pool(stage4)
    embedding = self.bnneck(pooled, train)
    return GlobalOutput(pooled, embedding, self.classifier(embedding))
