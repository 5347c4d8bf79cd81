"""Sparse re-ranking against the dense algorithm."""

import numpy as np
import pytest

from benchmarks import opponents
from magnifier_jax.evaluation.distances import distance_blocks
from magnifier_jax.evaluation.ranking import Identities, evaluate_blocks, evaluate_ranking
from magnifier_jax.evaluation.reranking import (
  RerankingOptions,
  evaluate_reranked,
  reranked_distances,
)
from tests.evaluation.random_features import clustered, coarse


def _clustered(seed: int, num_queries: int, num_gallery: int, num_people: int):
  rng = np.random.default_rng(seed)
  people = rng.integers(0, num_people, num_queries + num_gallery)
  embeddings = clustered(rng, people, width=128, noise=2.0)
  cameras = rng.integers(1, 4, len(people))
  query = Identities(people[:num_queries], cameras[:num_queries])
  gallery = Identities(people[num_queries:], cameras[num_queries:])
  return embeddings[:num_queries], embeddings[num_queries:], query, gallery


def _dense(query_embeddings, gallery_embeddings, options: RerankingOptions) -> np.ndarray:
  embeddings = np.concatenate([query_embeddings, gallery_embeddings])
  # Distances from the same product: another's last bits could swap neighbours. The dense algorithm
  # ranks down columns.
  distances = np.concatenate([block.copy() for block in distance_blocks(embeddings, embeddings)])
  return opponents.rerank_densely(distances.T, len(query_embeddings), *options)


def _sparse(query_embeddings, gallery_embeddings, options, block_size=None) -> np.ndarray:
  blocks = reranked_distances(query_embeddings, gallery_embeddings, options, block_size)
  return np.concatenate([block.copy() for block in blocks])


def test_2000_images_agree_with_the_dense_algorithm():
  queries, images, _, _ = _clustered(0, 400, 1600, num_people=100)
  options = RerankingOptions()
  np.testing.assert_allclose(
    _sparse(queries, images, options), _dense(queries, images, options), rtol=0, atol=1e-5
  )


@pytest.mark.parametrize(
  "options",
  [
    RerankingOptions(k1=5, k2=1, original_weight=0.3),  # no averaging
    RerankingOptions(k1=7, k2=12, original_weight=0.0),  # k2 above k1 + 1; half of k1 rounds to 4
    RerankingOptions(k1=1, k2=2, original_weight=0.5),  # half of k1 rounds to 0
    RerankingOptions(k1=200, k2=150),  # more than there are images
  ],
)
def test_any_options_agree_with_the_dense_algorithm(options: RerankingOptions):
  queries, images, _, _ = _clustered(1, 30, 90, num_people=12)
  np.testing.assert_allclose(
    _sparse(queries, images, options, block_size=7),
    _dense(queries, images, options),
    rtol=0,
    atol=1e-5,
  )


def test_ties_agree_with_the_dense_algorithm():
  rng = np.random.default_rng(2)
  queries, images = coarse(rng, 40), coarse(rng, 360)
  images[200:240] = images[0]  # more equal images than neighbours: some do not find themselves
  options = RerankingOptions()
  np.testing.assert_allclose(
    _sparse(queries, images, options), _dense(queries, images, options), rtol=0, atol=1e-5
  )


def test_equal_images_have_no_original_distance():
  embeddings = np.tile(np.eye(1, 4, dtype=np.float32), (6, 1))
  distances = _sparse(embeddings[:2], embeddings[2:], RerankingOptions(k1=5, k2=1))
  np.testing.assert_allclose(distances, 0, atol=1e-6)
  assert distances.min() >= 0


def test_all_weight_on_the_original_distance_keeps_the_ranking():
  queries, images, query, gallery = _clustered(3, 50, 400, num_people=20)
  kept = evaluate_reranked(queries, images, query, gallery, RerankingOptions(original_weight=1.0))
  assert kept.mAP == pytest.approx(evaluate_ranking(queries, images, query, gallery).mAP, abs=1e-6)


def test_metrics_are_those_of_the_dense_distances():
  queries, images, query, gallery = _clustered(4, 100, 500, num_people=30)
  actual = evaluate_reranked(queries, images, query, gallery)
  dense = _dense(queries, images, RerankingOptions())
  expected = evaluate_blocks([dense], query, gallery)
  assert actual.mAP == pytest.approx(expected.mAP, abs=1e-6)
  np.testing.assert_allclose(actual.cmc, expected.cmc, atol=1e-6)
  assert actual.mAP > evaluate_ranking(queries, images, query, gallery).mAP + 0.02
