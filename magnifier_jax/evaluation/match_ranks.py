"""The rank of every match in a block of distances, without ordering the gallery.

A match's rank is 1 + the number of images that are closer, or as close and earlier in the gallery.
Those are looked up among a query's sorted distances, which know no images: sorting numbers is many
times faster than sorting images by them.
"""

import concurrent.futures
import itertools
from typing import NamedTuple

import numpy as np

from magnifier_jax.evaluation.distances import MAX_DISTANCE, row_slices
from magnifier_jax.evaluation.identities import EvaluationError, PersonIndex

# Distances are counted in bins of 2⁻¹⁴, a power of two so that scaling a float32 is exact. The last
# bin holds the largest distance alone.
BINS_PER_UNIT = 2**14
NUM_BINS = MAX_DISTANCE * BINS_PER_UNIT + 1

# If no more than this share of a row is as close as the last match, only those are sorted.
_FEW = 1 / 8


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
  with concurrent.futures.ThreadPoolExecutor(1) as counter:
    counting = counter.submit(_count_block, block)  # while this thread ranks
    ranks = _rank_by_query(block, query_row, gallery_row)
    counts = counting.result()
  if counts.sum() + num_ignored != block.size:
    raise EvaluationError(f"distances must be in 0 to {MAX_DISTANCE}, found a larger one")
  genuine_counts = bin_counts(block[query_row, gallery_row])
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


def _count_block(block: np.ndarray) -> np.ndarray:
  return sum(bin_counts(part) for part in row_slices(block))


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
  """Returns the rank of each column in stable order, [matches] int64."""
  matches = distances[columns]
  not_after_last = distances <= matches.max()
  few = np.count_nonzero(not_after_last) <= _FEW * len(distances)
  # numpy sorts numbers with vector instructions, many times faster than it sorts their positions.
  ordered = np.sort(distances[not_after_last] if few else distances)
  ranks = np.searchsorted(ordered, matches) + 1
  tied = np.searchsorted(ordered, matches, side="right") > ranks
  for match in np.flatnonzero(tied).tolist():
    ranks[match] += np.count_nonzero(distances[: columns[match]] == matches[match])
  return ranks
