"""Exact retrieval metrics, streamed by blocks of queries: CMC, mAP, mINP and true-accept rates.

The conventions, on which published numbers differ:

- a query ignores its own person's images from its own camera, and junk images (person −1);
- a query without any match is left out of every mean, and counted;
- ties are broken by gallery order;
- average precision is Σ(i / rankᵢ) / matches; the trapezoid of the MATLAB tools has its own name.

Memory is that of the embeddings and of one block of distances.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
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
from magnifier_jax.evaluation.match_ranks import (
  BINS_PER_UNIT,
  NUM_BINS,
  BlockRanks,
  ignore,
  rank_matches,
)
from magnifier_jax.evaluation.sharded_ranks import rank_blocks_on_mesh

__all__ = [
  "EvaluationError",
  "Identities",
  "Nearest",
  "RankingMetrics",
  "TrueAcceptRate",
  "evaluate_blocks",
  "evaluate_ranking",
  "nearest",
]

SUMMARY_RANKS = (1, 5, 10, 20)
FALSE_ACCEPT_RATES = (1e-2, 1e-3, 1e-4)
_HISTOGRAM_BINS = 512


class TrueAcceptRate(NamedTuple):
  """The share of matches accepted by the loosest threshold that a false-accept rate allows.

  The threshold is searched in steps of 2⁻¹⁴; at it, the rates are exact.

  Attributes:
    false_accept_rate: the rate asked for; the actual one is at most this.
    true_accept_rate: the share of genuine pairs with a distance below the threshold.
    distance_threshold: in the distances' unit, squared Euclidean for embeddings; a pair is
      accepted if its distance is below.
  """

  false_accept_rate: float
  true_accept_rate: float
  distance_threshold: float


class DistanceHistogram(NamedTuple):
  """How many genuine and impostor pairs lie at which distance.

  Attributes:
    edges: [bins + 1] float64, squared Euclidean for embeddings; the last bin holds all above too.
    genuine: [bins] int64, pairs of a query and a match.
    impostor: [bins] int64, pairs of different people.
  """

  edges: np.ndarray
  genuine: np.ndarray
  impostor: np.ndarray


@dataclasses.dataclass(frozen=True)
class RankingMetrics:
  """Retrieval accuracy over the queries that have a match. Fractions, not percent.

  Attributes:
    cmc: [max_rank] float64; `cmc[r - 1]` is the share of queries with a match in the first r.
    mAP: mean average precision, Σ(i / rankᵢ) / matches ("step").
    mAP_trapezoid: the same by the MATLAB tools' trapezoids.
    mINP: mean inverse negative penalty, matches / rank of the last match.
    true_accept_rates: one for each false-accept rate; empty without impostor pairs.
    num_queries: evaluated queries.
    num_skipped_queries: queries left out, because nothing matches them.
    average_precision: [Q] float64, NaN where the query was left out.
    histogram: distances of genuine and impostor pairs.
  """

  cmc: np.ndarray
  mAP: float
  mAP_trapezoid: float
  mINP: float
  true_accept_rates: tuple[TrueAcceptRate, ...]
  num_queries: int
  num_skipped_queries: int
  average_precision: np.ndarray
  histogram: DistanceHistogram

  def rank(self, r: int) -> float:
    """Returns the share of queries with a match among their first `r` images."""
    if not 1 <= r <= len(self.cmc):
      raise EvaluationError(f"rank {r}: CMC was computed for ranks 1 to {len(self.cmc)}")
    return float(self.cmc[r - 1])

  def summary(self) -> dict[str, float]:
    """Returns the numbers that a table shows, by name, for JSON."""
    ranks = {f"rank{r}": self.rank(r) for r in SUMMARY_RANKS if r <= len(self.cmc)}
    rates = {
      f"tar@far={rate.false_accept_rate:g}": rate.true_accept_rate
      for rate in self.true_accept_rates
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
  max_rank: int = 50,
  false_accept_rates: Sequence[float] = FALSE_ACCEPT_RATES,
  block_size: int | None = None,
  mesh: Mesh | None = None,
) -> RankingMetrics:
  """Evaluates retrieval by embeddings.

  On a mesh the result does not depend on the number of devices. Between a mesh and the CPU's own
  matrix product, distances may differ by their last bits.

  Args:
    query_embeddings: [Q, D] float32, L2-normalised.
    gallery_embeddings: [G, D] float32, L2-normalised. It is not copied.
    query: identities of the queries.
    gallery: identities of the gallery.
    max_rank: how far CMC is computed.
    false_accept_rates: rates in 0 to 1 at which to give the true-accept rate.
    block_size: queries at a time; None for a block of about 64 MB.
    mesh: devices to share the gallery, along the one axis `data`; None for those of this process
      that are no CPU, or else for numpy, which is faster than XLA on CPUs.

  Raises:
    EvaluationError: on embeddings that are not finite, normalised and of one width, on identities
      of another length, or if no query has a match.
  """
  query_embeddings = np.asarray(query_embeddings, np.float32)
  gallery_embeddings = np.asarray(gallery_embeddings, np.float32)
  index = _person_index(query_embeddings, gallery_embeddings, query, gallery)
  if block_size is not None and block_size < 1:
    raise EvaluationError(f"block_size: must be at least 1, got {block_size}")
  if mesh is None and jax.default_backend() != "cpu":
    mesh = data_mesh(jax.local_devices())
  if mesh is None:
    ranked = _rank_blocks(distance_blocks(query_embeddings, gallery_embeddings, block_size), index)
  else:
    ranked = rank_blocks_on_mesh(query_embeddings, gallery_embeddings, index, mesh, block_size)
  return _metrics(ranked, index.num_queries, max_rank, false_accept_rates)


def evaluate_blocks(
  blocks: Iterable[np.ndarray],
  query: Identities,
  gallery: Identities,
  *,
  max_rank: int = 50,
  false_accept_rates: Sequence[float] = FALSE_ACCEPT_RATES,
) -> RankingMetrics:
  """Evaluates retrieval by distances of any origin, such as re-ranked ones.

  Args:
    blocks: [block, G] float32 each, the distances of one block of queries after the other, in 0 to
      4. Ignored entries are overwritten.
    query: identities of the queries, in the order of the blocks' rows.
    gallery: identities of the gallery, in the order of the blocks' columns.
    max_rank: how far CMC is computed.
    false_accept_rates: rates in 0 to 1 at which to give the true-accept rate.

  Raises:
    EvaluationError: if the blocks do not cover query × gallery, a distance is not in 0 to 4,
      or no query has a match.
  """
  query = check_identities(query, len(query.person_id), "query")
  gallery = check_identities(gallery, len(gallery.person_id), "gallery")
  index = PersonIndex(query, gallery)
  return _metrics(_rank_blocks(blocks, index), index.num_queries, max_rank, false_accept_rates)


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


def _rank_blocks(
  blocks: Iterable[np.ndarray], index: PersonIndex
) -> Iterator[tuple[int, BlockRanks]]:
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


def _metrics(
  ranked_blocks: Iterable[tuple[int, BlockRanks]],
  num_queries: int,
  max_rank: int,
  false_accept_rates: Sequence[float],
) -> RankingMetrics:
  if max_rank < 1:
    raise EvaluationError(f"max_rank: must be at least 1, got {max_rank}")
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
    cmc=np.array([np.mean(first_ranks <= r) for r in range(1, max_rank + 1)]),
    mAP=float(np.nanmean(scores.average_precision)),
    mAP_trapezoid=float(np.nanmean(scores.trapezoid_precision)),
    mINP=float(np.nanmean(scores.inverse_negative_penalty)),
    true_accept_rates=_true_accept_rates(genuine, impostor, false_accept_rates),
    num_queries=int(evaluated.sum()),
    num_skipped_queries=int(num_queries - evaluated.sum()),
    average_precision=scores.average_precision,
    histogram=_histogram(genuine, impostor),
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


def _true_accept_rates(
  genuine: np.ndarray, impostor: np.ndarray, false_accept_rates: Sequence[float]
) -> tuple[TrueAcceptRate, ...]:
  num_impostors = impostor.sum()
  if num_impostors == 0:
    return ()
  falsely_accepted, truly_accepted = np.cumsum(impostor), np.cumsum(genuine)
  rates = []
  for rate in false_accept_rates:
    if not 0 < rate < 1:
      raise EvaluationError(f"false_accept_rates: must lie between 0 and 1, got {rate}")
    bins = np.searchsorted(falsely_accepted, rate * num_impostors, side="right")
    accepted = truly_accepted[bins - 1] / truly_accepted[-1] if bins else 0.0
    rates.append(TrueAcceptRate(rate, float(accepted), float(bins / BINS_PER_UNIT)))
  return tuple(rates)


def _histogram(genuine: np.ndarray, impostor: np.ndarray) -> DistanceHistogram:
  width = (NUM_BINS - 1) // _HISTOGRAM_BINS
  edges = np.arange(_HISTOGRAM_BINS + 1) * (width / BINS_PER_UNIT)
  coarse = []
  for counts in (genuine, impostor):
    folded = counts[:-1].reshape(_HISTOGRAM_BINS, width).sum(axis=1)
    folded[-1] += counts[-1]
    coarse.append(folded)
  return DistanceHistogram(edges, *coarse)
