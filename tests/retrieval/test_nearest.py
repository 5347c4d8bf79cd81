"""Exact search: the order of brute force, whatever the shards and filters."""

import numpy as np
import pytest

from magnifier_jax.evaluation.embedding import l2_normalize
from magnifier_jax.retrieval.nearest import nearest_rows
from magnifier_jax.retrieval.tracklets import pool


def vectors(count: int, width: int = 8, seed: int = 0) -> np.ndarray:
  return l2_normalize(np.random.default_rng(seed).standard_normal((count, width), np.float32))


def brute_force(queries: np.ndarray, gallery: np.ndarray, keep: np.ndarray, k: int) -> np.ndarray:
  distances = np.where(keep, 2 - 2 * queries @ gallery.T, np.inf)
  return np.argsort(distances, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("share", [1.0, 0.6, 0.1])
@pytest.mark.parametrize("shard_rows", [1000, 137, 40])
def test_rows_are_those_of_brute_force(share: float, shard_rows: int):
  gallery, queries = vectors(1000), vectors(30, seed=1)
  keep = np.random.default_rng(2).random(1000) < share
  shards = [gallery[i : i + shard_rows] for i in range(0, 1000, shard_rows)]
  found = nearest_rows(shards, queries, 12, keep)
  rows = brute_force(queries, gallery, keep, 12)
  np.testing.assert_array_equal(found.row, rows)
  np.testing.assert_allclose(
    found.distance, np.square(queries[:, None] - gallery[rows]).sum(axis=2), atol=1e-5
  )


def test_ties_go_by_row_and_what_is_missing_is_marked():
  gallery = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
  keep = np.arange(12) != 4
  found = nearest_rows([gallery[:5], gallery[5:]], np.eye(4, dtype=np.float32)[1:2], 12, keep)
  assert found.row.tolist() == [[3, 5, 0, 1, 2, 6, 7, 8, 9, 10, 11, -1]]
  assert found.distance[0, :2].tolist() == [0, 0]
  assert np.isinf(found.distance[0, -1])


def test_tracks_are_pooled_as_a_loop_pools_them():
  gallery = vectors(90)
  track = np.random.default_rng(3).integers(-1, 9, 90)
  keep = np.random.default_rng(4).random(90) < 0.8
  tracklets = pool([gallery[:33], gallery[33:]], track, keep)
  seen, expected = set(), []
  for row in np.flatnonzero(keep):
    members = np.flatnonzero((track == track[row]) & keep) if track[row] >= 0 else np.array([row])
    if tuple(members) in seen:
      continue
    seen.add(tuple(members))
    mean = gallery[members].mean(axis=0)
    among = np.linalg.norm(gallery[members][:, None] - gallery[members], axis=2) ** 2
    medoid = members[among.sum(axis=1).argmin()]
    expected.append((mean / np.linalg.norm(mean), medoid, len(members)))
  means, medoids, sizes = zip(*expected)
  np.testing.assert_allclose(tracklets.vectors, means, atol=1e-6)
  assert tracklets.medoid.tolist() == list(medoids)
  assert tracklets.size.tolist() == list(sizes)
  assert max(sizes) > 5
