"""Input that cannot be evaluated is one clear error that names the argument."""

import numpy as np
import pytest

from magnifier_jax.evaluation.ranking import (
  EvaluationError,
  Identities,
  evaluate_blocks,
  evaluate_ranking,
  nearest,
)
from magnifier_jax.evaluation.reranking import (
  RerankingOptions,
  evaluate_reranked,
  reranked_distances,
)

_QUERY = Identities(np.array([1, 2]), np.array([1, 1]))
_GALLERY = Identities(np.array([1, 2, 3]), np.array([2, 2, 2]))


def _unit_rows(num_rows: int, width: int = 4) -> np.ndarray:
  return np.eye(num_rows, width, dtype=np.float32)


def _with(rows: np.ndarray, row: int, value: float) -> np.ndarray:
  rows[row, 0] = value
  return rows


_BAD_INPUT = {
  "NaN": (
    (_with(_unit_rows(2), 1, np.nan), _unit_rows(3), _QUERY, _GALLERY),
    "query_embeddings: 1 of 2 rows hold NaN or infinite values, the first is row 1",
  ),
  "infinite": (
    (_unit_rows(2), _with(_unit_rows(3), 2, np.inf), _QUERY, _GALLERY),
    "gallery_embeddings: 1 of 3 rows hold NaN or infinite values, the first is row 2",
  ),
  "not normalised": (
    (_unit_rows(2), 3 * _unit_rows(3), _QUERY, _GALLERY),
    "gallery_embeddings: rows must be L2-normalised, but row 0 has norm 3",
  ),
  "widths": (
    (_unit_rows(2, 4), _unit_rows(3, 5), _QUERY, _GALLERY),
    "query_embeddings are 4 wide and gallery_embeddings 5",
  ),
  "not a matrix": (
    (_unit_rows(2), np.ones((3, 1, 4), np.float32), _QUERY, _GALLERY),
    r"gallery_embeddings: must be \[images, dimensions\], got shape \(3, 1, 4\)",
  ),
  "no query": (
    (_unit_rows(0), _unit_rows(3), Identities(np.array([], int), np.array([], int)), _GALLERY),
    "query: there are no images",
  ),
  "no gallery": (
    (_unit_rows(2), _unit_rows(0), _QUERY, Identities(np.array([], int), np.array([], int))),
    "gallery: there are no images",
  ),
  "short person_id": (
    (_unit_rows(2), _unit_rows(3), Identities(np.array([1]), np.array([1, 1])), _GALLERY),
    r"query.person_id: expected one number for each of the 2 embeddings.*shape \(1,\)",
  ),
  "long camera_id": (
    (_unit_rows(2), _unit_rows(3), _QUERY, Identities(np.arange(3), np.arange(4))),
    "gallery.camera_id: expected one number for each of the 3 embeddings",
  ),
  "fractional ids": (
    (_unit_rows(2), _unit_rows(3), _QUERY, Identities(np.arange(3) / 2, np.arange(3))),
    "gallery.person_id: must be whole numbers, got float64",
  ),
  "nobody in common": (
    (_unit_rows(2), _unit_rows(3), _QUERY, Identities(np.array([7, 8, 9]), np.arange(3))),
    "no query has a match",
  ),
}


@pytest.mark.parametrize("evaluate", [evaluate_ranking, evaluate_reranked])
@pytest.mark.parametrize("case", _BAD_INPUT)
def test_bad_input(case: str, evaluate):
  arguments, message = _BAD_INPUT[case]
  with pytest.raises(EvaluationError, match=message):
    evaluate(*arguments)


def test_a_block_of_no_queries():
  with pytest.raises(EvaluationError, match="block_size: must be at least 1, got 0"):
    evaluate_ranking(_unit_rows(2), _unit_rows(3), _QUERY, _GALLERY, block_size=0)


@pytest.mark.parametrize("k", [0, 4])
def test_nearest_of_a_small_gallery(k: int):
  with pytest.raises(EvaluationError, match=f"k: must be 1 to 3, got {k}"):
    nearest(_unit_rows(2), _unit_rows(3), _QUERY, _GALLERY, k)


@pytest.mark.parametrize(
  ("distances", "message"),
  [
    (np.zeros((2, 4)), "shape .2, 4.; expected 3 columns"),
    (np.zeros((3, 3)), "queries 0 to 3 .* 2 rows in all"),
    (np.zeros((1, 3)), "distances of 2 queries expected, got 1"),
    (np.full((2, 3), -1.0), "must not be negative or NaN"),
    (np.full((2, 3), np.nan), "must not be negative or NaN"),
    (np.full((2, 3), 5.0), "must be in 0 to 4"),
    (np.full((2, 3), np.inf), "must be in 0 to 4"),
  ],
)
def test_bad_distance_blocks(distances: np.ndarray, message: str):
  with pytest.raises(EvaluationError, match=message):
    evaluate_blocks([distances.astype(np.float32)], _QUERY, _GALLERY)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (RerankingOptions(k1=0), "k1: must be at least 1, got 0"),
    (RerankingOptions(k2=0), "k2: must be at least 1, got 0"),
    (RerankingOptions(original_weight=1.5), "original_weight: must be 0 to 1, got 1.5"),
  ],
)
def test_bad_reranking_options(options: RerankingOptions, message: str):
  with pytest.raises(EvaluationError, match=message):
    reranked_distances(_unit_rows(2), _unit_rows(3), options)
