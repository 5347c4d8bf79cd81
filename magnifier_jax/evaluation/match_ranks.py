"""The rank of every match in a block of distances, without sorting the gallery.

A match's rank is 1 + the number of images that are closer, or as close and earlier in the gallery.
That takes one pass over the row for each match, and a query has few: on Market-1501 it is six times
faster than a stable sort of every row.
"""

from typing import NamedTuple

import numpy as np

from magnifier_jax.evaluation.distances import row_slices
from magnifier_jax.evaluation.identities import EvaluationError, PersonIndex

# Distances are counted in bins of 2⁻¹⁴, a power of two so that scaling a float32 is exact. The last
# bin holds 4, the largest squared distance of unit vectors, and all above it.
BINS_PER_UNIT = 2**14
NUM_BINS = 4 * BINS_PER_UNIT + 1


class BlockRanks(NamedTuple):
  """What a block of distances says about its queries.

  Attributes:
    query_row: [matches] int64, ascending, counted from the block's first query.
    rank: [matches] int64, from 1.
    genuine_counts: [NUM_BINS] int64, distances of matches.
    impostor_counts: [NUM_BINS] int64, distances to other people.
  """

  query_row: np.ndarray
  rank: np.ndarray
  genuine_counts: np.ndarray
  impostor_counts: np.ndarray


def rank_matches(block: np.ndarray, start: int, index: PersonIndex) -> BlockRanks:
  """Ranks the matches of a block of queries.

  Args:
    block: [block, G] float32 distances; ignored entries are overwritten.
    start: the query that row 0 belongs to.
    index: the identities of all queries and the gallery.

  Raises:
    EvaluationError: if a distance is negative or not finite.
  """
  pairs = index.pairs(start, start + len(block))
  same_person = block[pairs.query_row, pairs.gallery_row]
  genuine_counts = bin_counts(same_person[pairs.is_match])
  impostor_counts = sum(bin_counts(part) for part in row_slices(block))
  impostor_counts -= bin_counts(same_person)
  if len(index.junk_rows):
    impostor_counts -= bin_counts(block[:, index.junk_rows])
  ignore_pairs(block, start, index)
  query_row = pairs.query_row[pairs.is_match]
  rank = _count_closer(block, query_row, pairs.gallery_row[pairs.is_match]) + 1
  return BlockRanks(query_row, rank, genuine_counts, impostor_counts)


def ignore_pairs(block: np.ndarray, start: int, index: PersonIndex) -> None:
  """Sets the distances that a query must ignore to infinity, in place."""
  pairs = index.pairs(start, start + len(block))
  ignored = ~pairs.is_match
  block[pairs.query_row[ignored], pairs.gallery_row[ignored]] = np.inf
  if len(index.junk_rows):
    block[:, index.junk_rows] = np.inf


def bin_counts(distances: np.ndarray) -> np.ndarray:
  """Returns how many distances lie in each bin, [NUM_BINS] int64.

  Raises:
    EvaluationError: if a distance is negative or not finite.
  """
  scaled = np.minimum(distances.ravel() * np.float32(BINS_PER_UNIT), np.float32(NUM_BINS - 1))
  if len(scaled) and not scaled.min() >= 0:
    raise EvaluationError("distances must not be negative or NaN")
  return np.bincount(scaled.astype(np.int32), minlength=NUM_BINS)


def _count_closer(block: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  """Counts the entries of each row before `columns` in stable order, [matches] int64."""
  counts = np.empty(len(rows), np.int64)
  closer = np.empty(block.shape[1], bool)
  for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist())):
    distances = block[row]
    distance = distances[column]
    np.less_equal(distances[:column], distance, out=closer[:column])
    np.less(distances[column:], distance, out=closer[column:])
    counts[i] = np.count_nonzero(closer)
  return counts
