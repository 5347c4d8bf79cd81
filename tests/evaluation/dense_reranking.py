"""Re-ranking as its paper states it, with N × N matrices and loops: what the sparse way must equal.

Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
"""

import numpy as np


def rerank(
  squared_distances: np.ndarray, num_queries: int, k1: int, k2: int, original_weight: float
) -> np.ndarray:
  """Returns re-ranked distances, [Q, G] float32.

  Args:
    squared_distances: [N, N] float32 of all queries, then all gallery images.
    num_queries: how many of the N are queries.
    k1: neighbours that must be mutual.
    k2: neighbours to average over.
    original_weight: λ.
  """
  original = (squared_distances / squared_distances.max(axis=0)).T
  ranks = np.argsort(original, axis=1, kind="stable")
  encodings = np.zeros_like(original)
  for image in range(len(original)):
    members = _expanded(ranks, image, k1)
    weights = np.exp(-original[image, members])
    encodings[image, members] = weights / weights.sum()
  if k2 > 1:
    encodings = np.stack([encodings[row[:k2]].mean(axis=0) for row in ranks])
  jaccard = np.stack([_jaccard(encodings, query) for query in range(num_queries)])
  mixed = (1 - original_weight) * jaccard + original_weight * original[:num_queries]
  return mixed[:, num_queries:]


def _mutual(ranks: np.ndarray, image: int, k: int) -> np.ndarray:
  forward = ranks[image, : k + 1]
  return forward[(ranks[forward, : k + 1] == image).any(axis=1)]


def _expanded(ranks: np.ndarray, image: int, k1: int) -> np.ndarray:
  mutual = _mutual(ranks, image, k1)
  members = mutual
  for neighbour in mutual:
    theirs = _mutual(ranks, neighbour, int(np.around(k1 / 2)))
    if len(np.intersect1d(theirs, mutual)) > 2 / 3 * len(theirs):
      members = np.append(members, theirs)
  return np.unique(members)


def _jaccard(encodings: np.ndarray, query: int) -> np.ndarray:
  used = np.flatnonzero(encodings[query])
  overlap = np.minimum(encodings[query, used], encodings[:, used]).sum(axis=1)
  return 1 - overlap / (2 - overlap)
