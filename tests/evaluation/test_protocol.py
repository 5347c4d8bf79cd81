"""Rules about cameras: hand-worked cases, and random ones against brute force."""

import jax
import numpy as np
import pytest

from magnifier_jax.devices.mesh import data_mesh
from magnifier_jax.evaluation.identities import EvaluationError, Identities
from magnifier_jax.evaluation.protocol import (
  CROSS_CAMERA,
  IGNORE,
  SINGLE_SHOT,
  ImageNumbers,
  Protocol,
  image_numbers,
  make_protocol,
)
from magnifier_jax.evaluation.ranking import evaluate_ranking, nearest
from magnifier_jax.evaluation.reranking import RerankingOptions, reranked_distances
from tests.evaluation.random_features import clustered

UNKNOWN = -1


def _at_angles(degrees: list[float]) -> np.ndarray:
  radians = np.deg2rad(degrees)
  return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def _without_cameras(people: list[int]) -> Identities:
  return Identities(np.array(people), np.full(len(people), UNKNOWN))


def _protocol(
  rule: str, query: dict[str, int], gallery: dict[str, int], draws: int = 10
) -> Protocol:
  """A test of images {contents: person}; no name may come twice in a dict."""
  images = image_numbers(*([name[0].encode() for name in side] for side in (query, gallery)))
  sides = (_without_cameras(list(side.values())) for side in (query, gallery))
  return make_protocol(rule, *sides, images, draws)


def test_a_query_leaves_out_its_own_image_alone():
  # The gallery has the query itself twice, a stranger, and its person once more.
  protocol = _protocol(IGNORE, {"a": 7}, {"a": 7, "a again": 7, "b": 5, "c": 7})
  query, gallery = _at_angles([0]), _at_angles([0, 0, 10, 20])
  metrics = protocol.evaluate(query, gallery)
  assert metrics.mAP == pytest.approx(1 / 2)  # the stranger comes first
  assert metrics.cmc[:2].tolist() == [0, 1]
  assert metrics.pair_distances.genuine.sum() == 1
  found = nearest(query, gallery, protocol.query, protocol.gallery, 4)
  assert found.index[0, :2].tolist() == [2, 3]
  assert found.valid.tolist() == [[True, True, False, False]]


def test_images_from_one_camera_match_where_cameras_are_ignored():
  people, images = Identities(np.array([7]), np.array([1])), ImageNumbers(*np.array([[0], [1]]))
  vectors = _at_angles([0])
  with pytest.raises(EvaluationError, match="no query has a match"):
    make_protocol(CROSS_CAMERA, people, people, images, 1).evaluate(vectors, vectors)
  assert make_protocol(IGNORE, people, people, images, 1).evaluate(vectors, vectors).mAP == 1


def test_one_image_of_each_person_is_the_gallery():
  # Person 1 has two images and 2 has one, so each draw has one query; 3 is in no query. The query
  # is nearest to its own person's image, then to 3's, then to 2's.
  protocol = _protocol(SINGLE_SHOT, {"a": 1, "c": 2}, {"b": 1, "a too": 1, "d": 3, "e": 3})
  draws = list(protocol.galleries())
  assert len(draws) == 10
  rows = {tuple(draw.query) + tuple(draw.gallery) for draw in draws}
  # Rows: a, c | b, a again (left out), d, e.
  assert rows <= {(q, *sorted((g, 1, d))) for q, g in ((0, 2), (2, 0)) for d in (4, 5)}
  assert len(rows) > 2
  metrics = protocol.evaluate(_at_angles([0, 50]), _at_angles([10, 0, 20, 30]))
  assert (metrics.num_queries, metrics.num_skipped_queries) == (1, 0)
  assert metrics.mAP == 1
  # Now 3's images lie between those of 1, and 2's beyond: rank 2 in each draw.
  metrics = protocol.evaluate(_at_angles([0, 90]), _at_angles([40, 0, 20, 20]))
  assert metrics.mAP == pytest.approx(1 / 2)
  assert metrics.cmc[:2].tolist() == [0, 1]


def _random_case(seed: int) -> tuple[np.ndarray, np.ndarray, Identities, Identities, ImageNumbers]:
  """Embeddings of images of which some are queries and in the gallery, once or twice."""
  rng = np.random.default_rng(seed)
  person_of = rng.integers(-1, 12, 70)
  vectors = clustered(rng, person_of, width=16, noise=1.5)
  images = ImageNumbers(rng.integers(0, 70, 40), rng.integers(0, 70, 90))
  who = (Identities(person_of[i].astype(np.int32), np.full(len(i), UNKNOWN)) for i in images)
  return vectors[images.query], vectors[images.gallery], *who, images


def _brute_force(
  distances: np.ndarray, query: np.ndarray, gallery: np.ndarray, ignored: np.ndarray
) -> tuple[float, float]:
  """Returns mAP and rank-1 by sorting one gallery after the other; people [Q], [G]; -1 is junk."""
  precisions, firsts = [], []
  for row in np.flatnonzero(query != -1):
    kept = np.flatnonzero(~ignored[row] & (gallery != -1))
    right = gallery[kept[np.argsort(distances[row, kept], kind="stable")]] == query[row]
    if right.any():
      ranks = np.flatnonzero(right) + 1
      precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
      firsts.append(ranks[0] == 1)
  return float(np.mean(precisions)), float(np.mean(firsts))


def _distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
  return np.maximum(2 - 2 * query @ gallery.T, 0)


@pytest.mark.parametrize("seed", range(3))
def test_ignoring_cameras_agrees_with_brute_force(seed: int):
  query_vectors, gallery_vectors, query, gallery, images = _random_case(seed)
  protocol = make_protocol(IGNORE, query, gallery, images, 1)
  own = images.query[:, None] == images.gallery[None]
  assert 10 < own.sum() < own.size / 10
  expected = _brute_force(
    _distances(query_vectors, gallery_vectors), query.person_id, gallery.person_id, own
  )
  metrics = protocol.evaluate(query_vectors, gallery_vectors)
  assert (metrics.mAP, metrics.cmc[0]) == pytest.approx(expected)
  sharded = evaluate_ranking(
    *(query_vectors, gallery_vectors, protocol.query, protocol.gallery),
    mesh=data_mesh(jax.devices()[:2]),
    block_size=7,
  )
  assert (sharded.mAP, sharded.cmc[0]) == pytest.approx(expected)
  options = RerankingOptions(5, 3, 0.3)
  again = protocol.evaluate(query_vectors, gallery_vectors, options)
  blocks = reranked_distances(query_vectors, gallery_vectors, options)
  reranked = np.concatenate([block.copy() for block in blocks])
  expected = _brute_force(reranked, query.person_id, gallery.person_id, own)
  assert (again.mAP, again.cmc[0]) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reranking", [None, RerankingOptions(5, 3, 0.3)])
def test_single_shot_agrees_with_brute_force(seed: int, reranking: RerankingOptions | None):
  query_vectors, gallery_vectors, query, gallery, images = _random_case(seed)
  protocol = make_protocol(SINGLE_SHOT, query, gallery, images, 4)
  vectors = np.concatenate([query_vectors, gallery_vectors])
  person_id = np.concatenate([query.person_id, gallery.person_id])
  number = np.concatenate(images)
  found, num_queries = [], set()
  for draw in protocol.galleries():
    everybody = person_id[draw.gallery].tolist()
    assert sorted(everybody) == sorted(set(person_id.tolist()) - {-1})
    used = np.concatenate([draw.query, draw.gallery])
    assert len(set(number[used].tolist())) == len(used)  # no image twice
    # All other images of the queries' people are queries.
    wanted = {
      int(image)
      for image, person in zip(number, person_id)
      if person in set(query.person_id.tolist()) - {-1}
    } - set(number[draw.gallery].tolist())
    assert set(number[draw.query].tolist()) == wanted
    sides = vectors[draw.query], vectors[draw.gallery]
    if reranking is None:
      distances = _distances(*sides)
    else:
      distances = np.concatenate([b.copy() for b in reranked_distances(*sides, reranking)])
    nothing = np.zeros(distances.shape, bool)
    found.append(_brute_force(distances, person_id[draw.query], person_id[draw.gallery], nothing))
    num_queries.add(len(draw.query))
  metrics = protocol.evaluate(query_vectors, gallery_vectors, reranking)
  assert (metrics.mAP, metrics.cmc[0]) == pytest.approx(tuple(np.mean(found, axis=0)))
  assert num_queries == {metrics.num_queries}
  again = protocol.evaluate(query_vectors, gallery_vectors, reranking)
  assert again.summary() == metrics.summary()


@pytest.mark.parametrize(
  ("rule", "query", "gallery", "message"),
  [
    (IGNORE, {"a": 1}, {"a": 1, "b": 2}, r"nobody has another image than the query itself"),
    (IGNORE, {"a": -1}, {"b": -1}, r"nobody has another image than the query itself"),
    (SINGLE_SHOT, {"a": 1, "c": 2}, {"a": 1, "b": 3, "d": 3}, r"the only image of its person"),
    (CROSS_CAMERA, {"a": 1}, {"b": 1}, r"the cameras of 2 of 2 test images .* 'ignore' or 'single"),
  ],
)
def test_a_rule_that_leaves_no_match_is_one_line(rule, query, gallery, message):
  with pytest.raises(EvaluationError, match=message) as error:
    _protocol(rule, query, gallery).check()
  assert "config.evaluation.camera_rule" in str(error.value)
  assert "\n" not in str(error.value)


def test_a_rule_that_leaves_a_match_passes():
  _protocol(IGNORE, {"a": 1}, {"a": 1, "b": 1}).check()
  _protocol(SINGLE_SHOT, {"a": 1, "b": 1}, {"c": 3}).check()


def test_a_query_matches_the_same_picture_of_nobody_else():
  numbers = image_numbers([b"x", b"y"], [b"y", b"z", b"y"])
  assert numbers.query[1] == numbers.gallery[0] == numbers.gallery[2]
  assert len({*numbers.query.tolist(), *numbers.gallery.tolist()}) == 3
