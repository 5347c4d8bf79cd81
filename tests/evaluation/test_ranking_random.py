"""The metrics on random data against brute force, in any number of blocks and on any mesh."""

import dataclasses
import tracemalloc

import jax
import numpy as np
import pytest

from benchmarks import opponents
from magnifier_jax.devices.mesh import data_mesh
from magnifier_jax.evaluation.ranking import (
  Identities,
  RankingMetrics,
  evaluate_ranking,
  nearest,
)
from tests.evaluation.random_features import clustered, coarse, identities

_MEANS = ("mAP", "mAP_trapezoid", "mINP", "cmc", "num_queries")


def _random_case(
  seed: int, ties: bool, num_queries: int = 60, num_gallery: int = 900, num_people: int = 30
) -> tuple[np.ndarray, np.ndarray, Identities, Identities]:
  rng = np.random.default_rng(seed)
  query = identities(rng, num_queries, num_people)
  gallery = identities(rng, num_gallery, num_people)
  if ties:
    return coarse(rng, num_queries), coarse(rng, num_gallery), query, gallery
  embeddings = (clustered(rng, ids.person_id, width=64, noise=3.0) for ids in (query, gallery))
  return *embeddings, query, gallery


def _assert_identical(actual: RankingMetrics, expected: RankingMetrics) -> None:
  for field in dataclasses.fields(RankingMetrics):
    values = (getattr(metrics, field.name) for metrics in (actual, expected))
    assert jax.tree.all(jax.tree.map(_equal, *values)), field.name


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
  return np.array_equal(a, b, equal_nan=True)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_gallery", [40, 300, 900])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_brute_force(seed: int, num_gallery: int, ties: bool):
  case = _random_case(seed, ties, num_gallery=num_gallery)
  query_embeddings, gallery_embeddings, query, gallery = case
  metrics = evaluate_ranking(query_embeddings, gallery_embeddings, query, gallery, block_size=17)
  distances = opponents.squared_distances(query_embeddings, gallery_embeddings)
  expected = opponents.evaluate_by_sorting(distances, query, gallery)
  for name in _MEANS:
    np.testing.assert_allclose(getattr(metrics, name), expected[name], atol=1e-6, err_msg=name)
  if ties:
    assert len(np.unique(distances)) <= 17


def test_both_opponents_of_the_benchmark_agree():
  query_embeddings, gallery_embeddings, query, gallery = _random_case(1, ties=False)
  distances = opponents.squared_distances(query_embeddings, gallery_embeddings)
  valid = gallery.person_id >= 0
  distances, gallery = distances[:, valid], Identities(*(ids[valid] for ids in gallery))
  expected = opponents.evaluate_by_sorting(distances, query, gallery)
  actual = opponents.evaluate_by_sorting_at_once(distances, query, gallery)
  for name in _MEANS:
    np.testing.assert_allclose(actual[name], expected[name], atol=1e-9, err_msg=name)


def test_true_accept_rates_are_exact_at_the_loosest_threshold():
  case = _random_case(0, ties=False, num_queries=200)
  metrics = evaluate_ranking(*case)
  genuine, impostor = opponents.pair_distances(opponents.squared_distances(*case[:2]), *case[2:])
  for false_accept_rate, true_accept_rate, threshold in metrics.operating_points:
    assert true_accept_rate == pytest.approx(np.mean(genuine < threshold), abs=1e-9)
    assert np.mean(impostor < threshold) <= false_accept_rate
    assert np.mean(impostor < threshold + 2**-14) > false_accept_rate
  assert [rate for rate, _, _ in metrics.operating_points] == [1e-2, 1e-3, 1e-4]
  assert metrics.pair_distances.genuine.sum() == len(genuine)
  assert metrics.pair_distances.impostor.sum() == len(impostor)


@pytest.mark.parametrize("block_size", [1, 7, 60, 1000])
def test_blocks_do_not_change_the_result(block_size: int):
  case = _random_case(3, ties=True)
  _assert_identical(evaluate_ranking(*case, block_size=block_size), evaluate_ranking(*case))


@pytest.mark.parametrize("ties", [False, True])
def test_eight_devices_equal_one(ties: bool):
  case = _random_case(4, ties, num_gallery=3000)  # three tiles: some devices have only padding
  one = evaluate_ranking(*case, mesh=data_mesh(jax.devices()[:1]))
  for num_devices in (2, 8):
    mesh = data_mesh(jax.devices()[:num_devices])
    _assert_identical(evaluate_ranking(*case, mesh=mesh), one)
  if ties:
    _assert_identical(evaluate_ranking(*case), one)
  assert one.mAP == pytest.approx(evaluate_ranking(*case).mAP, abs=1e-6)


def test_last_block_on_a_mesh_may_be_smaller():
  case = _random_case(5, ties=True)
  mesh = data_mesh(jax.devices()[:2])
  _assert_identical(evaluate_ranking(*case, block_size=25, mesh=mesh), evaluate_ranking(*case))


def test_ranks_beyond_the_sorted_few_are_right_too():
  """Images are counted, not sorted, where a match is far down a long gallery."""
  rng = np.random.default_rng(6)
  query = Identities(np.array([1, 2]), np.array([1, 1]))
  gallery = Identities(rng.choice([1, 2, 3], 4000, p=[0.01, 0.01, 0.98]), np.full(4000, 2))
  embeddings = coarse(rng, 2, width=64), coarse(rng, 4000, width=64)
  metrics = evaluate_ranking(*embeddings, query, gallery)
  expected = opponents.evaluate_by_sorting(opponents.squared_distances(*embeddings), query, gallery)
  assert expected["mINP"] < 40 / 2000  # the last match is in the second half
  for name in _MEANS:
    np.testing.assert_allclose(getattr(metrics, name), expected[name], atol=1e-9, err_msg=name)


@pytest.mark.parametrize("ties", [False, True])
def test_nearest_agrees_with_sorting(ties: bool):
  query_embeddings, gallery_embeddings, query, gallery = _random_case(7, ties)
  result = nearest(query_embeddings, gallery_embeddings, query, gallery, k=10)
  distances = opponents.squared_distances(query_embeddings, gallery_embeddings)
  same_person = query.person_id[:, None] == gallery.person_id[None]
  same_camera = query.camera_id[:, None] == gallery.camera_id[None]
  distances[same_person & same_camera] = np.inf
  distances[:, gallery.person_id == -1] = np.inf
  distances[query.person_id == -1] = np.inf
  expected = np.argsort(distances, axis=1, kind="stable")[:, :10]
  np.testing.assert_array_equal(result.index, expected)
  np.testing.assert_array_equal(result.valid, (query.person_id != -1)[:, None] & np.ones(10, bool))


def test_memory_does_not_grow_as_query_times_gallery():
  case = _random_case(8, ties=False, num_queries=600, num_gallery=20_000, num_people=2000)
  tracemalloc.start()
  evaluate_ranking(*case, block_size=16)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 15e6  # the distances alone are 48 MB, the gallery 5 MB
