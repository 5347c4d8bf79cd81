"""The semantic adversarial branch: learns from samples whose body parts are occluded."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.models.convolution import Conv1x1
from magnifier_jax.models.layers import BatchNorm, classifier, wide_dtype_of
from magnifier_jax.models.parts import masked_max_pool
from magnifier_jax.models.resnet import Bottleneck


class AdversarialOutput(NamedTuple):
  """Outputs of the semantic adversarial branch."""

  features: jax.Array  # [B, D] before the BN neck
  embedding: jax.Array  # [B, D] after the BN neck
  logits: jax.Array  # [B, N]
  beta: jax.Array  # scalar β = sigmoid(mean of the keep mask over the batch)


class SemanticAdversarialBranch(nnx.Module):
  """Bottleneck → × keep mask → max pool → 1×1 → BN neck → classifier.

  Args:
    in_features: channels of stage 3.
    features: D.
    num_people: N, identities of the training set.
    dtype: of the convolutions before the pooling; all after it is in at least float32.
    rngs: with a `params` stream.
  """

  def __init__(
    self, in_features: int, features: int, num_people: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
  ):
    self.wide_dtype = wide_dtype_of(dtype)
    self.bottleneck = Bottleneck(in_features, in_features // 4, dtype=dtype, rngs=rngs)
    options = {"dtype": self.wide_dtype, "rngs": rngs}
    self.reduce = Conv1x1(in_features, features, **options)
    self.bnneck = BatchNorm(features, dtype=self.wide_dtype)
    self.classifier = classifier(features, num_people, **options)

  def __call__(
    self, stage3: jax.Array, keep_mask: jax.Array | None, train: bool
  ) -> AdversarialOutput:
    """Embeds stage3 [B, h, w, C]; keep_mask [B, h, w] is 0 on occluded parts, None keeps all."""
    x = self.bottleneck(stage3, train)
    if keep_mask is None:
      keep_mask = jnp.ones(x.shape[:3], jnp.uint8)
    pooled = masked_max_pool(x, keep_mask)
    features = self.reduce(pooled[:, None, None, :])[:, 0, 0]
    embedding = self.bnneck(features, train)
    beta = jax.nn.sigmoid(keep_mask.mean(dtype=self.wide_dtype))
    return AdversarialOutput(features, embedding, self.classifier(embedding), beta)
