"""The semantic fusion branch: pools each body part and fuses the parts in sequence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.models.layers import (
  BatchNorm,
  RecurrentLayer,
  classifier,
  tiny_normal,
  wide_dtype_of,
)
from magnifier_jax.models.parts import part_max_pool
from magnifier_jax.models.resnet import Bottleneck


class FusionOutput(NamedTuple):
  """Outputs of the semantic fusion branch."""

  features: jax.Array  # [B, D] before the BN neck, for the triplet loss
  embedding: jax.Array  # [B, D] after the BN neck
  logits: jax.Array  # [B, N]
  part_features: jax.Array  # [B, S, C] before the parts' BN necks, for the diversity loss
  part_logits: jax.Array  # [B, S, N]
  part_beta: jax.Array  # [S] βᵢ = sigmoid(mean of part i's mask over the batch)


class SemanticFusionBranch(nnx.Module):
  """Bottleneck → part-masked max pools → LSTM or GRU over the parts → BN neck → classifier.

  Every part has a BN neck and a classifier of its own beside it. They are stacked: one BN of
  shape (S, C), one kernel [S, C, N].

  Args:
    in_features: C, channels of stage 3.
    features: D, width of the recurrent layer.
    num_people: N, identities of the training set.
    cell: 'lstm' or 'gru'.
    dtype: of the convolutions before the pooling; all after it is in at least float32.
    rngs: with a `params` stream.
  """

  def __init__(
    self,
    in_features: int,
    features: int,
    num_people: int,
    *,
    cell: str,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    self.wide_dtype = wide_dtype_of(dtype)
    self.bottleneck = Bottleneck(in_features, in_features // 4, dtype=dtype, rngs=rngs)
    options = {"dtype": self.wide_dtype, "rngs": rngs}
    self.part_bnneck = BatchNorm(NUM_PARTS, in_features, dtype=self.wide_dtype)
    self.part_classifier = PartClassifiers(in_features, num_people, **options)
    self.fusion = RecurrentLayer(in_features, features, cell=cell, **options)
    self.bnneck = BatchNorm(features, dtype=self.wide_dtype)
    self.classifier = classifier(features, num_people, **options)

  def __call__(self, stage3: jax.Array, part_labels: jax.Array, train: bool) -> FusionOutput:
    """Embeds stage3 [B, h, w, C] by part_labels [B, h, w] in 0…7."""
    x = self.bottleneck(stage3, train)
    part_features = part_max_pool(x, part_labels).astype(self.wide_dtype)
    features = self.fusion(part_features)
    embedding = self.bnneck(features, train)
    return FusionOutput(
      features=features,
      embedding=embedding,
      logits=self.classifier(embedding),
      part_features=part_features,
      part_logits=self.part_classifier(self.part_bnneck(part_features, train)),
      part_beta=jax.nn.sigmoid(_part_shares(part_labels, self.wide_dtype)),
    )


class PartClassifiers(nnx.Module):
  """S linear classifiers, one a part."""

  def __init__(self, features: int, classes: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    self.dtype = dtype
    param_dtype = wide_dtype_of(dtype)
    shape = (NUM_PARTS, features, classes)
    self.kernel = nnx.Param(tiny_normal(rngs.params(), shape, param_dtype))
    self.bias = nnx.Param(jnp.zeros((NUM_PARTS, classes), param_dtype))

  def __call__(self, parts: jax.Array) -> jax.Array:
    """Maps parts [B, S, C] to logits [B, S, N]."""
    logits = jnp.einsum("BSC,SCN->BSN", parts, self.kernel[...].astype(self.dtype))
    return logits + self.bias[...].astype(self.dtype)[None]


def _part_shares(part_labels: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """Returns the share of the batch's pixels [S] that each part has."""
  return jnp.stack([(part_labels == part).mean(dtype=dtype) for part in range(NUM_PARTS)])
