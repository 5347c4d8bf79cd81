"""Exact search: the product of queries and gallery, shard by shard, with the k nearest kept."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from magnifier_jax.evaluation.distances import distance_blocks, smallest

# Below this share of rows that a filter keeps, copying them is cheaper than the product of all.
_FEW = 1 / 4
_QUERY_BLOCK = 512


class NearestRows(NamedTuple):
  """The nearest rows of a gallery to each query, nearest first, ties by row.

  Attributes:
    row: [Q, k] int64; −1 where no more rows are searched.
    distance: [Q, k] float32, squared Euclidean; infinite there.
  """

  row: np.ndarray
  distance: np.ndarray


def nearest_rows(
  shards: Iterable[np.ndarray], queries: np.ndarray, k: int, keep: np.ndarray | None = None
) -> NearestRows:
  """Searches a gallery.

  Args:
    shards: [rows, D] float32 each, L2-normalised; together the gallery, in order.
    queries: [Q, D] float32, L2-normalised.
    k: at least 1.
    keep: [rows of all shards] bool, which of them are searched; None for all.
  """
  best = NearestRows(np.full((len(queries), k), -1), np.full((len(queries), k), np.inf, np.float32))
  first = 0
  for shard in shards:
    kept = np.arange(len(shard)) if keep is None else np.flatnonzero(keep[first:][: len(shard)])
    if len(kept):
      _search_shard(shard, kept, first, queries, best)
    first += len(shard)
  return best


def _search_shard(
  shard: np.ndarray, kept: np.ndarray, first: int, queries: np.ndarray, best: NearestRows
) -> None:
  """Puts the nearest of a shard's kept rows among the best."""
  if len(kept) < _FEW * len(shard):
    shard, rows, dropped = shard[kept], first + kept, None
  else:
    rows = first + np.arange(len(shard))
    dropped = np.ones(len(shard), bool)
    dropped[kept] = False
  k = min(best.row.shape[1], len(kept))
  start = 0
  for block in distance_blocks(queries, shard, _QUERY_BLOCK):
    if dropped is not None and dropped.any():
      block[:, dropped] = np.inf
    columns = smallest(block, k)
    found = NearestRows(rows[columns], np.take_along_axis(block, columns, axis=1))
    queries_here = slice(start, start + len(block))
    kept_best = merged(NearestRows(*(side[queries_here] for side in best)), found)
    best.row[queries_here], best.distance[queries_here] = kept_best
    start += len(block)


def merged(best: NearestRows, found: NearestRows) -> NearestRows:
  """Returns the nearest of both, as many as `best` has, whose rows come first in ties."""
  row = np.concatenate([best.row, found.row], axis=1)
  distance = np.concatenate([best.distance, found.distance], axis=1)
  order = np.argsort(distance, axis=1, kind="stable")[:, : best.row.shape[1]]
  return NearestRows(
    np.take_along_axis(row, order, axis=1), np.take_along_axis(distance, order, axis=1)
  )


def vectors_of(shards: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
  """Returns the vectors of some rows of a gallery, [rows, D] float32."""
  vectors = np.empty((len(rows), shards[0].shape[1] if shards else 0), np.float32)
  first = 0
  for shard in shards:
    here = (rows >= first) & (rows < first + len(shard))
    vectors[here] = shard[rows[here] - first]
    first += len(shard)
  return vectors
