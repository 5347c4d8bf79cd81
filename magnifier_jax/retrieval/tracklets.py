"""Tracklets: all images of one track as one vector, shown by the image in their middle."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from magnifier_jax.evaluation.embedding import l2_normalize


class Tracklets(NamedTuple):
  """Tracks, and images without one, each of which stands alone; in the order of their first rows.

  Attributes:
    vectors: [T, D] float32, the mean of the images' embeddings, L2-normalised.
    medoid: [T] int64, row of the image with the smallest sum of distances to the others.
    size: [T] int64, images.
  """

  vectors: np.ndarray
  medoid: np.ndarray
  size: np.ndarray


def pool(shards: Sequence[np.ndarray], track: np.ndarray, keep: np.ndarray) -> Tracklets:
  """Pools the tracks of a gallery.

  Args:
    shards: [rows, D] float32 each, L2-normalised; together the gallery, in order.
    track: [N] int64, number of each row's track; −1 for none.
    keep: [N] bool, which rows are pooled.
  """
  rows = np.flatnonzero(keep)
  group = _groups(track[rows])
  size = np.bincount(group)
  whole_group = np.full(len(track), -1)
  whole_group[rows] = group
  sums = np.zeros((len(size), shards[0].shape[1] if shards else 0), np.float32)
  for shard, first in _with_first_row(shards):
    groups = whole_group[first : first + len(shard)]
    _add_by_group(sums, shard, groups)
  vectors = l2_normalize(sums)
  closeness = np.full(len(track), -np.inf, np.float32)
  for shard, first in _with_first_row(shards):
    pooled = np.flatnonzero(whole_group[first : first + len(shard)] >= 0)
    means = vectors[whole_group[first + pooled]]
    closeness[first + pooled] = np.einsum("nd,nd->n", shard[pooled], means)
  # Unit vectors: the sum of squared distances to the others falls as the product with the sum.
  order = np.lexsort((-closeness[rows], group))
  medoid = rows[order[np.searchsorted(group[order], np.arange(len(size)))]]
  return Tracklets(vectors, medoid, size)


def _groups(track: np.ndarray) -> np.ndarray:
  """Numbers tracks, and rows without one, by their first rows; [rows] int64."""
  alone = track < 0
  labels = np.where(alone, track.max(initial=-1) + 1 + np.arange(len(track)), track)
  _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
  place = np.empty(len(first), np.int64)
  place[np.argsort(first)] = np.arange(len(first))
  return place[inverse]


def _add_by_group(sums: np.ndarray, shard: np.ndarray, groups: np.ndarray) -> None:
  """Adds the rows of a shard to the sums of their groups; −1 is no group."""
  order = np.argsort(groups, kind="stable")
  order = order[groups[order] >= 0]
  if not len(order):
    return
  sorted_groups = groups[order]
  starts = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
  sums[sorted_groups[starts]] += np.add.reduceat(shard[order], starts, axis=0)


def _with_first_row(shards: Sequence[np.ndarray]):
  first = 0
  for shard in shards:
    yield shard, first
    first += len(shard)
