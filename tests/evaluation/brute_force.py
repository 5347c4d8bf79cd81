"""The metrics by their definitions: every query's gallery is sorted, nothing is clever."""

import numpy as np

from magnifier_jax.evaluation.ranking import Identities


def squared_distances(query_embeddings: np.ndarray, gallery_embeddings: np.ndarray) -> np.ndarray:
  """Returns [Q, G] float32, max(0, 2 − 2·q·g)."""
  products = query_embeddings @ gallery_embeddings.T
  return np.maximum(np.float32(2) - np.float32(2) * products, np.float32(0))


def ranked_matches(distances: np.ndarray, query: Identities, gallery: Identities) -> list:
  """Returns, for each query, a bool vector of its valid gallery images, nearest first."""
  rows = []
  for row, person, camera in zip(distances, query.person_id, query.camera_id):
    order = np.argsort(row, kind="stable")
    same_person = gallery.person_id[order] == person
    ignored = (same_person & (gallery.camera_id[order] == camera)) | (
      gallery.person_id[order] == -1
    )
    rows.append(same_person[~ignored])
  return rows


def scores(is_match: np.ndarray) -> dict[str, float]:
  """Returns one query's scores from its ranked valid images."""
  precision = np.cumsum(is_match) / np.arange(1, len(is_match) + 1)
  earlier = np.concatenate([[1.0], precision[:-1]])
  matches = is_match.sum()
  return {
    "first_rank": np.argmax(is_match) + 1,
    "mAP": precision[is_match].sum() / matches,
    "mAP_trapezoid": ((precision + earlier) / 2)[is_match].sum() / matches,
    "mINP": matches / (np.flatnonzero(is_match)[-1] + 1),
  }


def evaluate(distances: np.ndarray, query: Identities, gallery: Identities) -> dict:
  """Returns the means over queries with a match, and CMC at ranks 1 to 50."""
  ranked = [row for row in ranked_matches(distances, query, gallery) if row.any()]
  by_query = [scores(row) for row in ranked]
  result = {name: np.mean([s[name] for s in by_query]) for name in ("mAP", "mAP_trapezoid", "mINP")}
  first_ranks = np.array([s["first_rank"] for s in by_query])
  result["cmc"] = np.array([np.mean(first_ranks <= r) for r in range(1, 51)])
  result["num_queries"] = len(ranked)
  return result


def pair_distances(
  distances: np.ndarray, query: Identities, gallery: Identities
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the distances of all genuine and of all impostor pairs."""
  same_person = query.person_id[:, None] == gallery.person_id[None]
  same_camera = query.camera_id[:, None] == gallery.camera_id[None]
  junk = (query.person_id[:, None] == -1) | (gallery.person_id[None] == -1)
  return distances[same_person & ~same_camera & ~junk], distances[~same_person & ~junk]
