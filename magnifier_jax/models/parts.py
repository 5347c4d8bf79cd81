"""Semantic parts on the feature grid: resizing of labels and part-masked pooling."""

import jax
import jax.numpy as jnp

from magnifier_jax.config import NUM_PARTS


def resize_nearest(labels: jax.Array, height: int, width: int) -> jax.Array:
  """Resizes labels [B, h, w] to [B, height, width] as PyTorch's `interpolate(mode='nearest')`.

  Row i comes from row ⌊i · h / height⌋, columns likewise.
  """
  rows = jnp.arange(height) * labels.shape[1] // height
  columns = jnp.arange(width) * labels.shape[2] // width
  return jnp.asarray(labels)[:, rows][:, :, columns]


def masked_max_pool(features: jax.Array, mask: jax.Array) -> jax.Array:
  """Pools features [B, H, W, C] ≥ 0 where mask [B, H, W] is set; returns [B, C].

  Where nothing is set the result is zero, and so is its gradient.
  """
  kept = jnp.where(mask[..., None] != 0, features, jnp.zeros((), features.dtype))
  return kept.max(axis=(1, 2))


def part_max_pool(features: jax.Array, part_labels: jax.Array) -> jax.Array:
  """Pools features [B, H, W, C] ≥ 0 over each part of part_labels [B, H, W]; [B, S, C].

  A loop over the parts, because broadcasting would hold S copies of the feature map.
  """
  pooled = [masked_max_pool(features, part_labels == part) for part in range(NUM_PARTS)]
  return jnp.stack(pooled, axis=1)
