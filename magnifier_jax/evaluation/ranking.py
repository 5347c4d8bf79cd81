"""Exact retrieval metrics, streamed by blocks of queries: CMC, mAP, mINP and true-accept rates.

The conventions, on which published numbers differ:

- a query ignores its own person's images from its own camera, and junk images (person −1);
- a query without any match is left out of every mean, and counted;
- ties are broken by gallery order;
- average precision is Σ(i / rankᵢ) / matches; the trapezoid of the MATLAB tools has its own name.

Memory is that of the embeddings and of one block of distances.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from magnifier_jax.devices.mesh import data_mesh
from magnifier_jax.evaluation.distances import check_embeddings, distance_blocks, smallest
from magnifier_jax.evaluation.identities import (
  EvaluationError,
  Identities,
  PersonIndex,
  check_identities,
)
from magnifier_jax.evaluation.match_ranks import NUM_BINS, BlockRanks, ignore, rank_matches
from magnifier_jax.evaluation.pair_distances import (
  OperatingPoint,
  PairDistances,
  operating_points,
  pair_distances,
)
from magnifier_jax.evaluation.sharded_ranks import rank_blocks_on_mesh

__all__ = [
  "EvaluationError",
  "Identities",
  "Nearest",
  "RankingMetrics",
  "evaluate_blocks",
  "evaluate_ranking",
  "mean_metrics",
  "nearest",
  "rank_blocks",
  "rank_embeddings",
]

RankedBlocks = Iterator[tuple[int, BlockRanks]]  # of each block of queries: how many, and what

_MAX_RANK = 50  # of CMC
_SUMMARY_RANKS = (1, 5, 10, 20)


@dataclasses.dataclass(frozen=True)
class RankingMetrics:
  """Retrieval accuracy over the queries that have a match. Fractions, not percent.

  Attributes:
    cmc: [50] float64; `cmc[r - 1]` is the share of queries with a match in the first r.
    mAP: mean average precision, Σ(i / rankᵢ) / matches ("step").
    mAP_trapezoid: the same by the MATLAB tools' trapezoids.
    mINP: mean inverse negative penalty, matches / rank of the last match.
    operating_points: one for each false-accept rate; empty without impostor pairs.
    num_queries: evaluated queries.
    num_skipped_queries: queries left out, because nothing matches them.
    average_precision: [Q] float64, NaN where the query was left out.
    pair_distances: of genuine and impostor pairs.
  """

  cmc: np.ndarray
  mAP: float
  mAP_trapezoid: float
  mINP: float
  operating_points: tuple[OperatingPoint, ...]
  num_queries: int
  num_skipped_queries: int
  average_precision: np.ndarray
  pair_distances: PairDistances

  def summary(self) -> dict[str, float]:
    """Returns the numbers that a table shows, by name, for JSON."""
    ranks = {f"rank{r}": float(self.cmc[r - 1]) for r in _SUMMARY_RANKS}
    rates = {
      f"tar@far={point.false_accept_rate:g}": point.true_accept_rate
      for point in self.operating_points
    }
    means = {"mAP": self.mAP, "mAP_trapezoid": self.mAP_trapezoid, "mINP": self.mINP}
    counts = {
      "num_queries": self.num_queries,
      "num_skipped_queries": self.num_skipped_queries,
    }
    return ranks | means | rates | counts


class Nearest(NamedTuple):
  """The first gallery images of each query.

  Attributes:
    index: [Q, k] int64, gallery rows, nearest first.
    distance: [Q, k] float32, squared Euclidean.
    valid: [Q, k] bool; False past the end of the images that the query does not ignore.
  """

  index: np.ndarray
  distance: np.ndarray
  valid: np.ndarray


class _QueryScores(NamedTuple):
  """Scores of the queries of a block, [block] float64 each; NaN without a match."""

  first_rank: np.ndarray
  average_precision: np.ndarray
  trapezoid_precision: np.ndarray
  inverse_negative_penalty: np.ndarray


def evaluate_ranking(
  query_embeddings: np.ndarray,
  gallery_embeddings: np.ndarray,
  query: Identities,
  gallery: Identities,
  *,
  block_size: int | None = None,
  mesh: Mesh | None = None,
) -> RankingMetrics:
  """Evaluates retrieval by embeddings; arguments and errors are those of `rank_embeddings`.

  Raises:
    EvaluationError: if no query has a match, too.
  """
  return mean_metrics(
    rank_embeddings(
      query_embeddings, gallery_embeddings, query, gallery, block_size=block_size, mesh=mesh
    )
  )


def rank_embeddings(
  query_embeddings: np.ndarray,
  gallery_embeddings: np.ndarray,
  query: Identities,
  gallery: Identities,
  *,
  block_size: int | None = None,
  mesh: Mesh | None = None,
) -> RankedBlocks:
  """Ranks the matches of all queries by embeddings.

  On a mesh the result does not depend on the number of devices. Between a mesh and the CPU's own
  matrix product, distances may differ by their last bits.

  Args:
    query_embeddings: [Q, D] float32, L2-normalised.
    gallery_embeddings: [G, D] float32, L2-normalised. It is not copied.
    query: identities of the queries.
    gallery: identities of the gallery.
    block_size: queries at a time; None for a block of about 64 MB.
    mesh: devices to share the gallery, along the one axis `data`; None for those of this process
      that are no CPU, or else for numpy, which is faster than XLA on CPUs.

  Returns:
    What `mean_metrics` takes, one block of queries after the other.

  Raises:
    EvaluationError: on embeddings that are not finite, normalised and of one width, or on
      identities of another length.
  """
  query_embeddings = np.asarray(query_embeddings, np.float32)
  gallery_embeddings = np.asarray(gallery_embeddings, np.float32)
  index = _person_index(query_embeddings, gallery_embeddings, query, gallery)
  if block_size is not None and block_size < 1:
    raise EvaluationError(f"block_size: must be at least 1, got {block_size}")
  if mesh is None and jax.default_backend() != "cpu":
    mesh = data_mesh(jax.local_devices())
  if mesh is None:
    return _rank_blocks(distance_blocks(query_embeddings, gallery_embeddings, block_size), index)
  return rank_blocks_on_mesh(query_embeddings, gallery_embeddings, index, mesh, block_size)


def evaluate_blocks(
  blocks: Iterable[np.ndarray], query: Identities, gallery: Identities
) -> RankingMetrics:
  """Evaluates retrieval by distances; arguments and errors are those of `rank_blocks`.

  Raises:
    EvaluationError: if no query has a match, too.
  """
  return mean_metrics(rank_blocks(blocks, query, gallery))


def rank_blocks(
  blocks: Iterable[np.ndarray], query: Identities, gallery: Identities
) -> RankedBlocks:
  """Ranks the matches of all queries by distances of any origin, such as re-ranked ones.

  Args:
    blocks: [block, G] float32 each, the distances of one block of queries after the other, in 0 to
      4. Ignored entries are overwritten.
    query: identities of the queries, in the order of the blocks' rows.
    gallery: identities of the gallery, in the order of the blocks' columns.

  Returns:
    What `mean_metrics` takes.

  Raises:
    EvaluationError: if the blocks do not cover query × gallery, or a distance is not in 0 to 4.
  """
  query = check_identities(query, len(query.person_id), "query")
  gallery = check_identities(gallery, len(gallery.person_id), "gallery")
  return _rank_blocks(blocks, PersonIndex(query, gallery))


def nearest(
  query_embeddings: np.ndarray,
  gallery_embeddings: np.ndarray,
  query: Identities,
  gallery: Identities,
  k: int,
) -> Nearest:
  """Returns the first k gallery images of each query, by the same rules as the metrics.

  Args:
    query_embeddings: [Q, D] float32, L2-normalised.
    gallery_embeddings: [G, D] float32, L2-normalised.
    query: identities of the queries.
    gallery: identities of the gallery.
    k: images a query, at most G.

  Raises:
    EvaluationError: as `evaluate_ranking`, or if k is not in 1 to G.
  """
  query_embeddings = np.asarray(query_embeddings, np.float32)
  gallery_embeddings = np.asarray(gallery_embeddings, np.float32)
  person_index = _person_index(query_embeddings, gallery_embeddings, query, gallery)
  if not 1 <= k <= len(gallery_embeddings):
    raise EvaluationError(f"k: must be 1 to {len(gallery_embeddings)}, got {k}")
  indices, distances, start = [], [], 0
  for block in distance_blocks(query_embeddings, gallery_embeddings):
    ignore(block, start, person_index)
    indices.append(smallest(block, k))
    distances.append(np.take_along_axis(block, indices[-1], axis=1))
    start += len(block)
  distance = np.concatenate(distances)
  return Nearest(np.concatenate(indices), distance, np.isfinite(distance))


def _person_index(
  query_embeddings: np.ndarray,
  gallery_embeddings: np.ndarray,
  query: Identities,
  gallery: Identities,
) -> PersonIndex:
  """Checks all four arguments."""
  query = check_identities(query, len(query_embeddings), "query")
  gallery = check_identities(gallery, len(gallery_embeddings), "gallery")
  check_embeddings(query_embeddings, gallery_embeddings)
  return PersonIndex(query, gallery)


def _rank_blocks(blocks: Iterable[np.ndarray], index: PersonIndex) -> RankedBlocks:
  """Yields each block's number of queries and its `BlockRanks`."""
  start = 0
  for block in blocks:
    stop = start + len(block)
    if block.shape[1] != index.num_gallery or stop > index.num_queries:
      raise EvaluationError(
        f"distances of queries {start} to {stop} have shape {block.shape}; expected "
        f"{index.num_gallery} columns and {index.num_queries} rows in all"
      )
    yield len(block), rank_matches(block, start, index)
    start = stop
  if start != index.num_queries:
    raise EvaluationError(f"distances of {index.num_queries} queries expected, got {start}")


def mean_metrics(ranked_blocks: RankedBlocks) -> RankingMetrics:
  """Returns the means over all queries of some blocks.

  Raises:
    EvaluationError: if no query has a match.
  """
  genuine, impostor = np.zeros(NUM_BINS, np.int64), np.zeros(NUM_BINS, np.int64)
  block_scores = []
  for block_size, ranks in ranked_blocks:
    block_scores.append(_query_scores(ranks.query_row, ranks.rank, block_size))
    genuine += ranks.genuine_counts
    impostor += ranks.impostor_counts
  scores = _QueryScores(*(np.concatenate(column) for column in zip(*block_scores)))
  evaluated = ~np.isnan(scores.first_rank)
  if not evaluated.any():
    raise EvaluationError(
      "no query has a match: no person of the query set is in the gallery from another camera"
    )
  first_ranks = scores.first_rank[evaluated]
  return RankingMetrics(
    cmc=np.array([np.mean(first_ranks <= r) for r in range(1, _MAX_RANK + 1)]),
    mAP=float(np.nanmean(scores.average_precision)),
    mAP_trapezoid=float(np.nanmean(scores.trapezoid_precision)),
    mINP=float(np.nanmean(scores.inverse_negative_penalty)),
    operating_points=operating_points(genuine, impostor),
    num_queries=int(evaluated.sum()),
    num_skipped_queries=int(np.count_nonzero(~evaluated)),
    average_precision=scores.average_precision,
    pair_distances=pair_distances(genuine, impostor),
  )


def _query_scores(query_row: np.ndarray, rank: np.ndarray, num_queries: int) -> _QueryScores:
  """Scores each query from the ranks of its matches."""
  order = np.lexsort((rank, query_row))
  rank = rank[order].astype(np.float64)  # query_row is sorted already
  matches = np.bincount(query_row, minlength=num_queries)
  first = np.cumsum(matches) - matches
  place = np.arange(1, len(rank) + 1) - first[query_row]  # i of rankᵢ
  precision = place / rank
  # Precision one image earlier; the MATLAB tools start from 1.
  earlier = np.where(rank > 1, (place - 1) / np.maximum(rank - 1, 1), 1.0)
  scores = np.full((4, num_queries), np.nan)
  found = matches > 0
  count = matches[found]
  scores[0, found] = rank[first[found]]
  scores[1, found] = np.bincount(query_row, precision, num_queries)[found] / count
  scores[2, found] = np.bincount(query_row, (earlier + precision) / 2, num_queries)[found] / count
  scores[3, found] = count / rank[first[found] + count - 1]
  return _QueryScores(*scores)
