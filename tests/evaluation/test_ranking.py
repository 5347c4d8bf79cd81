"""Hand-worked cases of the metrics: every expected number is derived in a comment."""

import numpy as np
import pytest

from magnifier_jax.evaluation import pair_distances
from magnifier_jax.evaluation.pair_distances import OperatingPoint, PairDistances
from magnifier_jax.evaluation.ranking import (
  Identities,
  RankingMetrics,
  evaluate_blocks,
  evaluate_ranking,
  nearest,
)


def _identities(*person_and_camera: tuple[int, int]) -> Identities:
  return Identities(*np.array(person_and_camera, np.int32).T)


def _evaluate(distances: list, query: Identities, gallery: Identities, **kwargs) -> RankingMetrics:
  blocks = (np.array([row], np.float32) for row in distances)
  return evaluate_blocks(blocks, query, gallery, **kwargs)


def _at_angles(degrees: list[float]) -> np.ndarray:
  radians = np.deg2rad(degrees)
  return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_one_query():
  metrics = _evaluate(
    [[0.3, 0.1, 0.4, 0.2]],
    _identities((7, 1)),
    _identities((7, 2), (7, 3), (5, 2), (6, 2)),
  )
  # Order: match, other, match, other. Matches have ranks 1 and 3.
  assert metrics.mAP == pytest.approx((1 / 1 + 2 / 3) / 2)
  # Precision before rank 1 counts as 1, at rank 2 it is 1/2.
  assert metrics.mAP_trapezoid == pytest.approx(((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2)
  assert metrics.mINP == pytest.approx(2 / 3)
  assert metrics.cmc.tolist() == [1] * 50
  assert (metrics.num_queries, metrics.num_skipped_queries) == (1, 0)


def test_mean_over_queries():
  metrics = _evaluate(
    [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]],
    _identities((1, 1), (3, 1)),
    _identities((1, 2), (2, 2), (3, 2)),
  )
  # Ranks 1 and 3, one match each.
  assert metrics.cmc[:4].tolist() == [0.5, 0.5, 1, 1]
  assert metrics.mAP == pytest.approx((1 + 1 / 3) / 2)
  assert metrics.mINP == pytest.approx((1 + 1 / 3) / 2)
  assert metrics.mAP_trapezoid == pytest.approx((1 + (0 / 2 + 1 / 3) / 2) / 2)
  assert metrics.average_precision == pytest.approx([1, 1 / 3])


@pytest.mark.parametrize(("match_column", "rank"), [(0, 1), (1, 2), (2, 3)])
def test_ties_are_broken_by_gallery_order(match_column: int, rank: int):
  people = [(5, 2), (5, 2), (5, 2)]
  people[match_column] = (7, 2)
  metrics = _evaluate([[0.5, 0.5, 0.5]], _identities((7, 1)), _identities(*people))
  assert metrics.cmc[:3].tolist() == [float(r >= rank) for r in (1, 2, 3)]
  assert metrics.mAP == pytest.approx(1 / rank)


def test_tied_matches_have_ranks_of_their_own():
  people = _identities((7, 2), (5, 2), (7, 3))
  metrics = _evaluate([[0.5, 0.5, 0.5]], _identities((7, 1)), people)
  assert metrics.mAP == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_ties_of_equal_images():
  embeddings = _at_angles([30, 30, 30, 90])
  query = _identities((7, 1))
  metrics = evaluate_ranking(
    _at_angles([0]), embeddings, query, _identities((5, 2), (7, 2), (5, 3), (7, 3))
  )
  # The match is the second of three equal images; the other is fourth.
  assert metrics.cmc[:3].tolist() == [0, 1, 1]
  assert metrics.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_junk_is_as_if_it_were_not_there():
  with_junk = _evaluate(
    [[0.0, 0.3, 0.1, 0.2]],
    _identities((7, 1)),
    _identities((-1, 2), (7, 2), (-1, 1), (5, 2)),
  )
  without = _evaluate([[0.3, 0.2]], _identities((7, 1)), _identities((7, 2), (5, 2)))
  assert with_junk.mAP == without.mAP == pytest.approx(1 / 2)
  assert with_junk.pair_distances.impostor.sum() == without.pair_distances.impostor.sum() == 1


def test_junk_query_is_left_out():
  metrics = _evaluate(
    [[0.1, 0.2], [0.1, 0.2]], _identities((-1, 1), (7, 1)), _identities((-1, 2), (7, 2))
  )
  assert (metrics.num_queries, metrics.num_skipped_queries) == (1, 1)
  assert metrics.pair_distances.impostor.sum() == 0
  assert metrics.operating_points == ()


def test_distractors_count_as_wrong():
  metrics = _evaluate([[0.1, 0.2]], _identities((7, 1)), _identities((0, 1), (7, 2)))
  assert metrics.cmc[:3].tolist() == [0, 1, 1]
  assert metrics.mAP == pytest.approx(1 / 2)


def test_own_camera_is_ignored_but_for_other_people():
  metrics = _evaluate([[0.0, 0.1, 0.2]], _identities((7, 1)), _identities((7, 1), (5, 1), (7, 2)))
  # The same person by the same camera is ignored; the stranger by that camera is first.
  assert metrics.cmc[:3].tolist() == [0, 1, 1]
  assert metrics.mAP == pytest.approx(1 / 2)


def test_queries_without_a_match_are_left_out_and_counted():
  metrics = _evaluate(
    [[0.1, 0.2, 0.3]] * 3,
    _identities((7, 1), (8, 1), (9, 1)),
    _identities((8, 1), (9, 2), (5, 2)),  # 7 is not there, 8 is only seen by the query's camera
  )
  assert (metrics.num_queries, metrics.num_skipped_queries) == (1, 2)
  assert np.isnan(metrics.average_precision).tolist() == [True, True, False]
  assert metrics.mAP == metrics.average_precision[2] == pytest.approx(1 / 2)


def test_gallery_smaller_than_the_top_rank():
  metrics = _evaluate([[0.2, 0.1]], _identities((7, 1)), _identities((7, 2), (5, 2)))
  assert metrics.cmc.tolist() == [0] + [1] * 49
  assert {"rank1", "rank5", "rank10", "rank20"} <= metrics.summary().keys()


def test_summary_has_the_numbers_of_a_table():
  metrics = _evaluate([[0.2, 0.1]], _identities((7, 1)), _identities((7, 2), (5, 2)))
  assert metrics.summary() == {
    "rank1": 0,
    "rank5": 1,
    "rank10": 1,
    "rank20": 1,
    "mAP": 1 / 2,
    "mAP_trapezoid": (0 / 1 + 1 / 2) / 2,
    "mINP": 1 / 2,
    "tar@far=0.01": 0,  # the impostor is nearer than the match
    "tar@far=0.001": 0,
    "tar@far=0.0001": 0,
    "num_queries": 1,
    "num_skipped_queries": 0,
  }


def test_true_accept_rate_and_its_threshold(monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setattr(pair_distances, "_FALSE_ACCEPT_RATES", (0.25, 0.5, 0.2))
  metrics = _evaluate(
    [[0.125, 0.25, 0.375, 0.5, 0.1875, 0.25]],
    _identities((7, 1)),
    _identities((1, 1), (2, 1), (3, 1), (4, 1), (7, 2), (7, 3)),
  )
  # Four impostors. One may pass: those below 0.25, as the match at 0.1875 is, and the one at 0.25
  # is not. Two may pass: those below 0.375, with both matches. None: those below 0.125.
  assert metrics.operating_points == (
    OperatingPoint(false_accept_rate=0.25, true_accept_rate=0.5, distance_threshold=0.25),
    OperatingPoint(false_accept_rate=0.5, true_accept_rate=1.0, distance_threshold=0.375),
    OperatingPoint(false_accept_rate=0.2, true_accept_rate=0.0, distance_threshold=0.125),
  )


def test_histogram_bins_hold_what_lies_between_their_edges():
  metrics = _evaluate(
    [[0.0, 0.25, 1.0, 4.0]], _identities((7, 1)), _identities((7, 2), (5, 2), (7, 3), (5, 1))
  )
  pairs = metrics.pair_distances
  assert pairs.edges[np.flatnonzero(pairs.genuine)].tolist() == [0, 1]
  assert pairs.edges[np.flatnonzero(pairs.impostor)][0] == 0.25
  assert (pairs.edges[-1], pairs.impostor[-1]) == (4, 1)


def test_nearest_follows_the_same_rules():
  result = nearest(
    _at_angles([0]),
    _at_angles([0, 10, 40, 20, 40, 5]),
    _identities((7, 1)),
    _identities((7, 1), (5, 1), (7, 2), (0, 2), (7, 3), (-1, 1)),
    k=5,
  )
  assert result.index[0, :4].tolist() == [1, 3, 2, 4]
  assert result.valid.tolist() == [[True, True, True, True, False]]
  assert result.distance[0, 0] == pytest.approx(2 - 2 * np.cos(np.deg2rad(10)), abs=1e-6)


def test_joined_bins_hold_the_same_pairs():
  pairs = PairDistances(
    edges=np.linspace(0, 2, 5), genuine=np.array([3, 2, 1, 0]), impostor=np.array([0, 10, 20, 30])
  ).joined(2)
  assert pairs.edges.tolist() == [0, 1, 2]
  assert (pairs.genuine.tolist(), pairs.impostor.tolist()) == ([5, 1], [10, 50])
