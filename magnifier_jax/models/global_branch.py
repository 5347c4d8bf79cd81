"""The global branch: average pooling of stage 4."""

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


class GlobalBranch(nnx.Module):
  """Average pool → BN neck → classifier.

  Args:
    features: D, channels of stage 4.
    num_people: N, identities of the training set.
    dtype: of the arithmetic.
    rngs: with a `params` stream.
  """

  def __init__(self, features: int, num_people: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    self.dtype = dtype
    self.bnneck = BatchNorm(features, dtype=dtype)
    self.classifier = classifier(features, num_people, dtype=dtype, rngs=rngs)

  def __call__(self, stage4: jax.Array, train: bool) -> GlobalOutput:
    """Embeds stage4 [B, h, w, D]."""
    pooled = stage4.mean(axis=(1, 2), dtype=param_dtype_of(self.dtype))
    embedding = self.bnneck(pooled, train)
    return GlobalOutput(pooled, embedding, self.classifier(embedding))
