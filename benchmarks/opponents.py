"""Evaluation as most code does it: the opponents of the benchmark, and the truth of the tests.

Galleries are sorted and matrices are dense; nothing is clever.
"""

import numpy as np

from magnifier_jax.evaluation.identities import JUNK_PERSON_ID, Identities


def squared_distances(query_embeddings: np.ndarray, gallery_embeddings: np.ndarray) -> np.ndarray:
  """Returns [Q, G] float32, max(0, 2 − 2·q·g)."""
  products = query_embeddings @ gallery_embeddings.T
  return np.maximum(np.float32(2) - np.float32(2) * products, np.float32(0))


def evaluate_by_sorting(
  distances: np.ndarray, query: Identities, gallery: Identities, max_rank: int = 50
) -> dict[str, np.ndarray | float]:
  """Returns the means over queries with a match: mAP, mAP_trapezoid, mINP, cmc, num_queries.

  As the toolboxes' Python does it, an argsort and a few passes of numpy for each query; but stable,
  so that ties have one result, and without the slow list of precisions that some of them make.

  Args:
    distances: [Q, G].
    query: identities of the queries.
    gallery: identities of the gallery.
    max_rank: how far CMC is computed.
  """
  by_query = []
  for row, person, camera in zip(distances, query.person_id, query.camera_id):
    order = np.argsort(row, kind="stable")
    is_match = gallery.person_id[order] == person
    ignored = is_match & (gallery.camera_id[order] == camera)
    ignored |= gallery.person_id[order] == JUNK_PERSON_ID
    is_match = is_match[~ignored]
    if is_match.any():
      by_query.append(_scores(is_match))
  means = {name: np.mean([scores[name] for scores in by_query]) for name in by_query[0]}
  first_ranks = np.array([scores["first_rank"] for scores in by_query])
  means["cmc"] = np.mean(first_ranks[:, None] <= np.arange(1, max_rank + 1), axis=0)
  means["num_queries"] = len(by_query)
  return means


def evaluate_by_sorting_at_once(
  distances: np.ndarray, query: Identities, gallery: Identities, max_rank: int = 50
) -> dict[str, np.ndarray | float]:
  """Returns the same but for ties, from one argsort of the matrix and no loop over queries.

  The least that ordering the gallery costs. `numpy.argsort`'s default kind is what toolboxes call
  before their loops, compiled or not: it orders ties as it likes, and has vector instructions on
  new processors. What follows is less than a compiled loop over all images. A query × gallery
  matrix of int64 is in memory.

  Args:
    distances: [Q, G].
    query: identities of the queries.
    gallery: identities of the gallery, without junk.
    max_rank: how far CMC is computed.
  """
  order = np.argsort(distances, axis=1)
  row, place = np.nonzero(gallery.person_id[order] == query.person_id[:, None])
  is_match = gallery.camera_id[order[row, place]] != query.camera_id[row]
  first_of_row = np.searchsorted(row, row)
  match_number = np.cumsum(is_match) - (np.cumsum(is_match) - is_match)[first_of_row]
  ignored = np.arange(1, len(row) + 1) - first_of_row - match_number  # up to here, in this row
  row, number, rank = (x[is_match] for x in (row, match_number, place + 1 - ignored))
  matches = np.bincount(row, minlength=len(distances))
  evaluated = matches > 0
  precision, earlier = number / rank, np.where(rank > 1, (number - 1) / np.maximum(rank - 1, 1), 1)

  def mean(values: np.ndarray) -> float:
    return np.mean(np.bincount(row, values, len(distances))[evaluated] / matches[evaluated])

  is_last = number == matches[row]
  return {
    "mAP": mean(precision),
    "mAP_trapezoid": mean((precision + earlier) / 2),
    "mINP": np.mean(precision[is_last]),
    "cmc": np.mean(rank[number == 1][:, None] <= np.arange(1, max_rank + 1), axis=0),
    "num_queries": int(evaluated.sum()),
  }


def _scores(is_match: np.ndarray) -> dict[str, float]:
  """Scores one query by its valid images, nearest first."""
  precision = np.cumsum(is_match) / np.arange(1, len(is_match) + 1)
  earlier = np.concatenate([[1.0], precision[:-1]])
  ranks = np.flatnonzero(is_match) + 1
  return {
    "first_rank": ranks[0],
    "mAP": precision[is_match].mean(),
    "mAP_trapezoid": ((precision + earlier) / 2)[is_match].mean(),
    "mINP": len(ranks) / ranks[-1],
  }


def pair_distances(
  distances: np.ndarray, query: Identities, gallery: Identities
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the distances of all genuine and of all impostor pairs."""
  same_person = query.person_id[:, None] == gallery.person_id[None]
  same_camera = query.camera_id[:, None] == gallery.camera_id[None]
  junk = (query.person_id[:, None] == JUNK_PERSON_ID) | (gallery.person_id[None] == JUNK_PERSON_ID)
  return distances[same_person & ~same_camera & ~junk], distances[~same_person & ~junk]


def rerank_densely(
  distances: np.ndarray, num_queries: int, k1: int, k2: int, original_weight: float
) -> np.ndarray:
  """Re-ranks with N × N matrices, as the paper states it.

  Args:
    distances: [N, N] float32 squared distances of all queries, then all gallery images.
    num_queries: how many of the N are queries.
    k1: neighbours that must be mutual.
    k2: neighbours to average over.
    original_weight: λ.

  Returns:
    [Q, G] float32.

  Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
  """
  original = (distances / distances.max(axis=0)).T
  ranks = np.argsort(original, axis=1, kind="stable")
  encodings = np.zeros_like(original)
  for image in range(len(original)):
    members = _expanded_neighbours(ranks, image, k1)
    weights = np.exp(-original[image, members])
    encodings[image, members] = weights / weights.sum()
  if k2 > 1:
    encodings = np.stack([encodings[row[:k2]].mean(axis=0) for row in ranks])
  jaccard = _jaccard_distances(encodings, num_queries)
  mixed = (1 - original_weight) * jaccard + original_weight * original[:num_queries]
  return mixed[:, num_queries:]


def _mutual_neighbours(ranks: np.ndarray, image: int, k: int) -> np.ndarray:
  forward = ranks[image, : k + 1]
  return forward[(ranks[forward, : k + 1] == image).any(axis=1)]


def _expanded_neighbours(ranks: np.ndarray, image: int, k1: int) -> np.ndarray:
  mutual = _mutual_neighbours(ranks, image, k1)
  members = mutual
  for neighbour in mutual:
    theirs = _mutual_neighbours(ranks, neighbour, int(np.around(k1 / 2)))
    if len(np.intersect1d(theirs, mutual)) > 2 / 3 * len(theirs):
      members = np.append(members, theirs)
  return np.unique(members)


def _jaccard_distances(encodings: np.ndarray, num_queries: int) -> np.ndarray:
  """Returns [Q, N] float32."""
  users = [np.flatnonzero(column) for column in encodings.T]
  overlap = np.zeros_like(encodings[:num_queries])
  for query in range(num_queries):
    for neighbour in np.flatnonzero(encodings[query]):
      images = users[neighbour]
      weights = encodings[images, neighbour]
      overlap[query, images] += np.minimum(encodings[query, neighbour], weights)
  return 1 - overlap / (2 - overlap)
