"""k-reciprocal neighbours from k-nearest lists: memory grows as images × k, not images².

Sets are rows of an int32 matrix, filled up with a number that is no image.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from magnifier_jax.evaluation.distances import distance_blocks, smallest

_NOBODY = -1
_NOBODY_EITHER = -2  # differs, so that fillings of two sets do not meet
_CHUNK_ROWS = 4096


class NearestLists(NamedTuple):
  """The nearest images of each image, itself among them, ties by position.

  Attributes:
    neighbours: [N, k] int32.
    scale: [N] float32, the distance from each image to the farthest of all.
  """

  neighbours: np.ndarray
  scale: np.ndarray


def nearest_lists(embeddings: np.ndarray, k: int) -> NearestLists:
  """Finds the k nearest of all images to each image.

  Args:
    embeddings: [N, D] float32, L2-normalised.
    k: length of the lists, at most N.
  """
  neighbours, scales = [], []
  for block in distance_blocks(embeddings, embeddings):
    # If all images are alike there is nothing to divide by.
    scales.append(np.maximum(block.max(axis=1), np.finfo(np.float32).tiny))
    neighbours.append(smallest(block, k).astype(np.int32))
  return NearestLists(np.concatenate(neighbours), np.concatenate(scales))


def expanded_neighbours(neighbours: np.ndarray, k1: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns each image's k-reciprocal neighbours, expanded by those of like-minded neighbours.

  Args:
    neighbours: [N, at least min(k1 + 1, N)] int32 nearest lists, which begin with the image itself.
    k1: neighbours to look at, the image itself not counted.

  Returns:
    [pairs] int64 image and [pairs] int64 neighbour, without repetition, in ascending order.

  Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017,
    equations 2 and 3.
  """
  reciprocal = _reciprocal(neighbours[:, : k1 + 1], _NOBODY)
  half = round(k1 / 2)  # to even, as numpy's around in the authors' code
  candidates = _reciprocal(neighbours[:, : half + 1], _NOBODY_EITHER)
  num_images = len(neighbours)
  chunks = []
  for rows in _chunks(num_images):
    images, members = _expand(rows, reciprocal, candidates)
    chunks.append(np.unique(images.astype(np.int64) * num_images + members))
  return np.divmod(np.concatenate(chunks), num_images)


def _chunks(num_rows: int) -> Iterator[np.ndarray]:
  for start in range(0, num_rows, _CHUNK_ROWS):
    yield np.arange(start, min(start + _CHUNK_ROWS, num_rows))


def _reciprocal(neighbours: np.ndarray, filling: int) -> np.ndarray:
  """Keeps the neighbours that have the image among their own, [N, k] int32."""
  kept = np.empty_like(neighbours)
  for rows in _chunks(len(neighbours)):
    forward = neighbours[rows]
    mutual = (neighbours[forward] == rows[:, None, None]).any(axis=2)
    kept[rows] = np.where(mutual, forward, filling)
  return kept


def _expand(
  rows: np.ndarray, reciprocal: np.ndarray, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (image, member) pairs of the rows' expanded sets, with repetitions."""
  own = reciprocal[rows]
  row, slot = np.nonzero(own != _NOBODY)
  member = own[row, slot]
  theirs = candidates[member]  # [members, half k1 + 1]
  shared = np.zeros(len(member), np.int64)
  for column in theirs.T:
    shared += (own[row] == column[:, None]).any(axis=1)
  like_minded = 3 * shared > 2 * np.count_nonzero(theirs != _NOBODY_EITHER, axis=1)
  guest_row, guest_slot = np.nonzero(theirs[like_minded] != _NOBODY_EITHER)
  guests = theirs[like_minded][guest_row, guest_slot]
  hosts = row[like_minded][guest_row]
  return rows[np.concatenate([row, hosts])], np.concatenate([member, guests])
