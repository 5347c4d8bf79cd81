"""Thresholds in `metrics.json`: what brute force over all pairs finds, and back again."""

import itertools
import json

import numpy as np
import pytest

from magnifier_jax.evaluation.embedding import l2_normalize
from magnifier_jax.evaluation.ranking import Identities, evaluate_ranking
from magnifier_jax.evaluation.thresholds import ThresholdError, Thresholds, calibrated, from_json

QUERIES, GALLERY = 40, 300


@pytest.fixture(scope="module")
def sides() -> tuple[tuple[np.ndarray, Identities], tuple[np.ndarray, Identities]]:
  """Query and gallery of 20 people, who look a little like themselves."""
  random = np.random.default_rng(0)
  looks = random.standard_normal((20, 16))

  def side(rows: int, cameras: tuple[int, ...]) -> tuple[np.ndarray, Identities]:
    people = np.arange(rows) % 20
    vectors = looks[people] + 1.2 * random.standard_normal((rows, 16))
    cameras = np.resize(cameras, rows)
    return l2_normalize(vectors.astype(np.float32)), Identities(people, cameras)

  return side(QUERIES, (1,)), side(GALLERY, (1, 2, 3))


@pytest.fixture(scope="module")
def thresholds(sides) -> Thresholds:
  """Of the whole embedding, and of a branch that is the same."""
  (query, query_ids), (gallery, gallery_ids) = sides
  metrics = evaluate_ranking(query, gallery, query_ids, gallery_ids)
  return calibrated("people of a test", False, metrics, {"global": metrics})


def test_they_are_those_of_brute_force(sides, thresholds: Thresholds):
  (query, query_ids), (gallery, gallery_ids) = sides
  genuine, impostor = [], []
  for q, g in itertools.product(range(QUERIES), range(GALLERY)):
    distance = float(((query[q] - gallery[g]) ** 2).sum())
    if query_ids.person_id[q] != gallery_ids.person_id[g]:
      impostor.append(distance)
    elif query_ids.camera_id[q] != gallery_ids.camera_id[g]:
      genuine.append(distance)
  counts = f"{len(genuine):,} genuine and {len(impostor):,} impostor pairs"
  assert thresholds.calibrated_on == f"people of a test: {counts}"
  for rate in (1e-2, 1e-3, 1e-4):
    point = thresholds.at(rate)
    accepted, accepted_if_looser = (
      np.mean(np.array(impostor) < point.distance_threshold + more) for more in (0, 2**-14)
    )
    assert accepted <= rate < accepted_if_looser
    expected = np.mean(np.array(genuine) < point.distance_threshold)
    assert point.true_accept_rate == pytest.approx(expected, abs=1e-3)
  assert thresholds.at(1e-2, "global") == thresholds.at(1e-2)
  assert 0.05 < thresholds.at(1e-2).true_accept_rate < 0.95


def test_they_survive_a_file(thresholds: Thresholds):
  stored = json.loads(json.dumps(thresholds.to_json()))
  assert list(stored) == ["calibrated_on", "flip", "whole", "global"]
  assert from_json(stored, "metrics.json") == thresholds


def test_another_rate_is_refused_with_those_that_there_are(thresholds: Thresholds):
  with pytest.raises(ThresholdError, match=r"far=0\.05: .* there are 0\.01, 0\.001, 0\.0001"):
    thresholds.at(0.05)


@pytest.mark.parametrize("damage", [None, [], {}, {"calibrated_on": "x", "flip": 0, "whole": [1]}])
def test_damaged_ones_are_named(damage):
  with pytest.raises(ThresholdError, match=r"run/metrics\.json: its thresholds are damaged"):
    from_json(damage, "run/metrics.json")
