"""ID, batch-hard triplet, semantic diversity and part segmentation losses.

All compute in at least float32 and are finite, with finite gradients, on absent parts, single
identities and identical vectors.
"""

import jax
import jax.numpy as jnp
import optax


def _wide(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def id_loss(logits: jax.Array, person_id: jax.Array, label_smoothing: float) -> jax.Array:
  """Cross-entropy with label smoothing (Szegedy et al., CVPR 2016).

  Args:
    logits: [B, N], or [B, S, N] for the parts, which share the labels.
    person_id: [B] int32 in 0…N−1.
    label_smoothing: ε; the target is (1 − ε) one-hot + ε / N.

  Returns:
    The mean over the batch, a scalar or [S].
  """
  num_classes = logits.shape[-1]
  targets = jax.nn.one_hot(person_id, num_classes, dtype=_wide(logits).dtype)
  targets = optax.smooth_labels(targets, label_smoothing)
  if logits.ndim == 3:
    targets = jnp.broadcast_to(targets[:, None, :], logits.shape)
  return optax.softmax_cross_entropy(_wide(logits), targets).mean(axis=0)


def batch_hard_triplet_loss(features: jax.Array, person_id: jax.Array, margin: float) -> jax.Array:
  """Batch-hard triplet loss on Euclidean distances (Hermans et al., 2017).

  Each anchor takes its farthest positive (itself counts, at distance 0) and its nearest negative.
  Anchors without a negative, in a batch of one person, contribute nothing.

  Args:
    features: [B, D], not normalised.
    person_id: [B] int32.
    margin: of the hinge, in the features' units.

  Returns:
    The mean over the anchors that have a negative, a scalar.
  """
  distances = pairwise_distances(_wide(features))
  same = person_id[:, None] == person_id[None, :]
  hardest_positive = _entries(distances, jnp.where(same, distances, -jnp.inf).argmax(axis=1))
  has_negative = ~same.all(axis=1)
  nearest_negative = _entries(distances, jnp.where(same, jnp.inf, distances).argmin(axis=1))
  hinge = jnp.maximum(hardest_positive - nearest_negative + margin, 0)
  return jnp.where(has_negative, hinge, 0).sum() / jnp.maximum(has_negative.sum(), 1)


def _entries(distances: jax.Array, columns: jax.Array) -> jax.Array:
  """Returns one entry of each row; a maximum's own gradient can be 0 / 0, see models/parts.py."""
  return jnp.take_along_axis(distances, columns[:, None], axis=1)[:, 0]


def pairwise_distances(features: jax.Array) -> jax.Array:
  """Returns Euclidean distances [B, B] of features [B, D]; at least 1e-6, for the gradient."""
  norms = jnp.square(features).sum(axis=1)
  products = jnp.matmul(features, features.T, precision=jax.lax.Precision.HIGHEST)
  squared = norms[:, None] + norms[None, :] - 2 * products
  return jnp.sqrt(jnp.maximum(squared, 1e-12))


def semantic_diversity_loss(part_features: jax.Array) -> jax.Array:
  """Mean cosine similarity of the parts' vectors, where positive.

  An absent part is a zero vector: its similarity to every other is 0, and so is its gradient.

  Args:
    part_features: [B, S, C], pooled, before the BN necks.

  Returns:
    max(0, mean over the S (S − 1) / 2 pairs of the batch mean), a scalar.
  """
  features = _wide(part_features)
  squared = jnp.square(features).sum(axis=-1, keepdims=True)
  present = squared > 0
  unit = features * jnp.where(present, jax.lax.rsqrt(jnp.where(present, squared, 1)), 0)
  # |Σᵢ uᵢ|² is the sum over all ordered pairs; the diagonal, 1 for each present part, goes.
  total = jnp.square(unit.sum(axis=1)).sum(axis=-1)
  num_parts = part_features.shape[1]
  cosines = (total - jnp.square(unit).sum(axis=(1, 2))) / (num_parts * (num_parts - 1))
  return jnp.maximum(cosines.mean(), 0)


def part_segmentation_loss(logits: jax.Array, part_labels: jax.Array) -> jax.Array:
  """Cross-entropy per pixel, averaged within each class present, then over those classes.

  Args:
    logits: [B, h, w, S].
    part_labels: [B, h, w] integers in 0…S−1.

  Returns:
    A scalar.
  """
  num_parts = logits.shape[-1]
  labels = part_labels.astype(jnp.int32)
  pixel_loss = optax.softmax_cross_entropy_with_integer_labels(_wide(logits), labels)
  one_hot = jax.nn.one_hot(labels, num_parts, dtype=pixel_loss.dtype)
  pixels = one_hot.sum(axis=(0, 1, 2))
  class_loss = jnp.einsum("Bhw,BhwS->S", pixel_loss, one_hot) / jnp.maximum(pixels, 1)
  return class_loss.sum() / (pixels > 0).sum()
