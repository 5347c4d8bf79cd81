"""The rank of every match in a block of distances, without sorting the gallery.

A match's rank is 1 + the number of images that are closer, or as close and earlier in the gallery.
A query has few matches, so counting takes a few passes over its row, where sorting takes many.
"""

import itertools
from typing import NamedTuple

import numpy as np

from magnifier_jax.evaluation.distances import MAX_DISTANCE, row_slices
from magnifier_jax.evaluation.identities import EvaluationError, PersonIndex

# Distances are counted in bins of 2⁻¹⁴, a power of two so that scaling a float32 is exact. The last
# bin holds the largest distance alone.
BINS_PER_UNIT = 2**14
NUM_BINS = MAX_DISTANCE * BINS_PER_UNIT + 1

# Up to here, sorting the images before a query's last match is quicker than counting for each.
_FEW_IMAGES = 512


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
    block: [block, G] float32 distances in 0 to 4; ignored entries are overwritten.
    start: the query that row 0 belongs to.
    index: the identities of all queries and the gallery.

  Raises:
    EvaluationError: if a distance is not in 0 to 4.
  """
  num_ignored = ignore(block, start, index)
  query_row, gallery_row = index.matches(start, start + len(block))
  genuine_counts = bin_counts(block[query_row, gallery_row])
  counts = sum(bin_counts(part) for part in row_slices(block))
  if counts.sum() + num_ignored != block.size:
    raise EvaluationError(f"distances must be in 0 to {MAX_DISTANCE}, found a larger one")
  ranks = _rank_by_query(block, query_row, gallery_row)
  return BlockRanks(query_row, ranks, genuine_counts, counts - genuine_counts)


def ignore(block: np.ndarray, start: int, index: PersonIndex) -> int:
  """Sets the distances that queries must ignore to infinity, in place, and returns how many."""
  stop = start + len(block)
  query_row, gallery_row = index.same_camera(start, stop)
  block[query_row, gallery_row] = np.inf
  junk_queries, junk_gallery = index.junk_queries(start, stop), index.junk_gallery
  block[:, junk_gallery] = np.inf
  block[junk_queries] = np.inf
  junk_pairs = len(block) * len(junk_gallery)
  junk_pairs += len(junk_queries) * (block.shape[1] - len(junk_gallery))
  return len(query_row) + junk_pairs


def bin_counts(distances: np.ndarray) -> np.ndarray:
  """Returns how many distances lie in each bin, [NUM_BINS] int64; those beyond are not counted.

  Raises:
    EvaluationError: if a distance is negative or NaN.
  """
  scaled = np.minimum(distances.ravel() * np.float32(BINS_PER_UNIT), np.float32(NUM_BINS))
  with np.errstate(invalid="ignore"):  # NaN becomes a negative number, which bincount refuses
    bins = scaled.astype(np.intp)
  try:
    return np.bincount(bins, minlength=NUM_BINS + 1)[:NUM_BINS]
  except ValueError:
    raise EvaluationError("distances must not be negative or NaN") from None


def _rank_by_query(block: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  """Returns the rank of each (row, column) among its row, [matches] int64; rows ascend."""
  ranks = np.empty(len(rows), np.int64)
  first = np.flatnonzero(np.diff(rows, prepend=-1))
  bounds = np.append(first, len(rows)).tolist()
  for begin, end in itertools.pairwise(bounds):
    ranks[begin:end] = _rank_in_row(block[rows[begin]], columns[begin:end])
  return ranks


def _rank_in_row(distances: np.ndarray, columns: np.ndarray) -> np.ndarray:
  """Returns the rank of each column in stable order, [matches] int64; columns ascend."""
  not_after_last = distances <= distances[columns].max()
  if np.count_nonzero(not_after_last) <= _FEW_IMAGES:
    near = np.flatnonzero(not_after_last)
    ranks = np.empty(len(near), np.int64)
    ranks[np.argsort(distances[near], kind="stable")] = np.arange(1, len(near) + 1)
    return ranks[np.searchsorted(near, columns)]
  return np.array([_count_before(distances, column) + 1 for column in columns.tolist()])


def _count_before(distances: np.ndarray, column: int) -> int:
  """Counts the entries before `column` in stable order."""
  distance = distances[column]
  earlier, later = distances[:column], distances[column:]
  return np.count_nonzero(earlier <= distance) + np.count_nonzero(later < distance)
