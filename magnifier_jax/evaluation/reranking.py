"""Re-ranking with k-reciprocal encoding, from sparse encodings instead of N × N matrices.

The numbers are those of the dense algorithm by Zhong et al., "Re-ranking Person Re-identification
with k-reciprocal Encoding", CVPR 2017, over all queries and gallery images at once, on squared
Euclidean distances divided by the largest in their column. Memory grows as images × k; the final
query × gallery distances are given block by block.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse

from magnifier_jax.evaluation.distances import check_embeddings, default_block_size, distance_blocks
from magnifier_jax.evaluation.identities import EvaluationError, Identities, check_identities
from magnifier_jax.evaluation.k_reciprocal import (
  NearestLists,
  expanded_neighbours,
  nearest_lists,
)
from magnifier_jax.evaluation.ranking import (
  RankedBlocks,
  RankingMetrics,
  mean_metrics,
  rank_blocks,
)


class RerankingOptions(NamedTuple):
  """The parameters of the paper, with its values.

  Attributes:
    k1: neighbours that must be mutual, at least 1.
    k2: neighbours that an encoding is averaged over, the image itself counted; 1 for none.
    original_weight: λ in 0 to 1, the share of the distance that was there before.
  """

  k1: int = 20
  k2: int = 6
  original_weight: float = 0.3


PAPER_OPTIONS = RerankingOptions()


def evaluate_reranked(
  query_embeddings: np.ndarray,
  gallery_embeddings: np.ndarray,
  query: Identities,
  gallery: Identities,
  options: RerankingOptions = PAPER_OPTIONS,
) -> RankingMetrics:
  """Evaluates retrieval by re-ranked distances; those of pairs and thresholds are in 0 to 1.

  Args:
    query_embeddings: [Q, D] float32, L2-normalised.
    gallery_embeddings: [G, D] float32, L2-normalised.
    query: identities of the queries.
    gallery: identities of the gallery.
    options: k1, k2, λ.

  Raises:
    EvaluationError: as `evaluate_ranking` and `reranked_distances`.
  """
  return mean_metrics(rank_reranked(query_embeddings, gallery_embeddings, query, gallery, options))


def rank_reranked(
  query_embeddings: np.ndarray,
  gallery_embeddings: np.ndarray,
  query: Identities,
  gallery: Identities,
  options: RerankingOptions = PAPER_OPTIONS,
) -> RankedBlocks:
  """Ranks the matches of all queries by re-ranked distances, for `mean_metrics`.

  Arguments and errors are those of `evaluate_reranked`.
  """
  query = check_identities(query, len(query_embeddings), "query")
  gallery = check_identities(gallery, len(gallery_embeddings), "gallery")
  blocks = reranked_distances(query_embeddings, gallery_embeddings, options)
  return rank_blocks(blocks, query, gallery)


def reranked_distances(
  query_embeddings: np.ndarray,
  gallery_embeddings: np.ndarray,
  options: RerankingOptions = PAPER_OPTIONS,
  block_size: int | None = None,
) -> Iterator[np.ndarray]:
  """Returns (1 − λ) · Jaccard + λ · original distance, one block of queries after the other.

  Args:
    query_embeddings: [Q, D] float32, L2-normalised.
    gallery_embeddings: [G, D] float32, L2-normalised.
    options: k1, k2, λ.
    block_size: queries at a time; None for a block of about 64 MB.

  Returns:
    An iterator of [block, G] float32 in 0 to 1. The memory is used again for the next block, and
    may be overwritten.

  Raises:
    EvaluationError: on embeddings that are not finite, normalised and of one width, or on options
      out of range.
  """
  _check_options(options)
  query_embeddings = np.asarray(query_embeddings, np.float32)
  gallery_embeddings = np.asarray(gallery_embeddings, np.float32)
  check_embeddings(query_embeddings, gallery_embeddings)
  embeddings = np.concatenate([query_embeddings, gallery_embeddings])
  lists = nearest_lists(embeddings, min(max(options.k1 + 1, options.k2), len(embeddings)))
  encodings = _encode(embeddings, lists, options)
  num_queries = len(query_embeddings)
  return _mix(
    embeddings[:num_queries],
    embeddings[num_queries:],
    encodings,
    lists.scale[:num_queries],
    options.original_weight,
    block_size,
  )


def _check_options(options: RerankingOptions) -> None:
  for name in ("k1", "k2"):
    if getattr(options, name) < 1:
      raise EvaluationError(f"{name}: must be at least 1, got {getattr(options, name)}")
  if not 0 <= options.original_weight <= 1:
    raise EvaluationError(f"original_weight: must be 0 to 1, got {options.original_weight}")


def _encode(
  embeddings: np.ndarray, lists: NearestLists, options: RerankingOptions
) -> scipy.sparse.csr_array:
  """Returns each image's weights over its neighbours, [N, N] float32; rows sum to 1."""
  num_images = len(embeddings)
  images, members = expanded_neighbours(lists.neighbours, options.k1)
  starts = np.searchsorted(images, np.arange(num_images + 1))
  weights = np.exp(-_pair_distances(embeddings, members, starts) / lists.scale[images])
  weights /= np.bincount(images, weights, num_images)[images]
  shape = (num_images, num_images)
  encodings = scipy.sparse.csr_array((weights.astype(np.float32), members, starts), shape=shape)
  return _average_over_neighbours(encodings, lists.neighbours[:, : options.k2])


def _pair_distances(embeddings: np.ndarray, members: np.ndarray, starts: np.ndarray) -> np.ndarray:
  """Returns the squared distance of each image to its members, [pairs] float32."""
  products = np.empty(len(members), np.float32)
  bounds = itertools.pairwise(starts.tolist())
  for image, (begin, end) in enumerate(bounds):
    products[begin:end] = embeddings[members[begin:end]] @ embeddings[image]
  return np.maximum(2 - 2 * products, 0)


def _average_over_neighbours(
  encodings: scipy.sparse.csr_array, neighbours: np.ndarray
) -> scipy.sparse.csr_array:
  """Local query expansion: the mean encoding of each image's nearest, itself among them."""
  num_images, k2 = neighbours.shape
  starts = np.arange(num_images + 1) * k2
  shares = np.full(neighbours.size, 1 / k2, np.float32)
  average = scipy.sparse.csr_array((shares, neighbours.ravel(), starts), shape=encodings.shape)
  return average @ encodings


def _mix(
  query_embeddings: np.ndarray,
  gallery_embeddings: np.ndarray,
  encodings: scipy.sparse.csr_array,
  scale: np.ndarray,
  original_weight: float,
  block_size: int | None,
) -> Iterator[np.ndarray]:
  num_queries = len(query_embeddings)
  query_encodings = encodings[:num_queries]
  inverted = encodings[num_queries:].tocsc()  # gallery images by neighbour
  block_size = block_size or default_block_size(len(gallery_embeddings))
  start = 0
  for block in distance_blocks(query_embeddings, gallery_embeddings, block_size):
    rows = slice(start, start + len(block))
    block *= (np.float32(original_weight) / scale[rows])[:, None]
    for row, query_row in enumerate(range(rows.start, rows.stop)):
      jaccard = _jaccard_distances(query_encodings, query_row, inverted)
      block[row] += (1 - original_weight) * jaccard
    yield block
    start = rows.stop


def _jaccard_distances(
  query_encodings: scipy.sparse.csr_array, row: int, inverted: scipy.sparse.csc_array
) -> np.ndarray:
  """Returns 1 − Σ min / Σ max of one query's encoding with all of the gallery, [G] float64.

  Both sums are over neighbours; encodings sum to 1, so Σ max = 2 − Σ min.
  """
  own = slice(*query_encodings.indptr[row : row + 2])
  neighbours, weights = query_encodings.indices[own], query_encodings.data[own]
  begin = inverted.indptr[neighbours]
  count = inverted.indptr[neighbours + 1] - begin
  # The entries of those columns, one column after the other.
  entries = np.arange(count.sum()) + np.repeat(begin - (np.cumsum(count) - count), count)
  smaller = np.minimum(inverted.data[entries], np.repeat(weights, count))
  overlap = np.bincount(inverted.indices[entries], smaller, inverted.shape[0])
  overlap = np.minimum(overlap, 1)  # above by rounding only
  return 1 - overlap / (2 - overlap)
