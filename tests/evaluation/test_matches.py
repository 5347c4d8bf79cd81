"""Whether anything can be evaluated is known before the images are embedded."""

import numpy as np
import pytest

from magnifier_jax.evaluation.identities import EvaluationError, PersonIndex, check_matches
from magnifier_jax.evaluation.ranking import Identities, evaluate_ranking


def _identities(*pairs: tuple[int, int]) -> Identities:
  return Identities(*np.array(pairs, np.int32).reshape(-1, 2).T)


_WITHOUT_A_MATCH = {
  "one camera": (_identities((1, 1), (2, 1)), _identities((1, 1), (2, 1), (3, 2))),
  "other people": (_identities((1, 1), (9, 1)), _identities((2, 2), (3, 2))),
  "junk": (_identities((-1, 1), (1, 1)), _identities((-1, 2), (2, 2))),
  "nothing but junk": (_identities((1, 1)), _identities((-1, 2))),
}


@pytest.mark.parametrize("sides", _WITHOUT_A_MATCH.values(), ids=_WITHOUT_A_MATCH)
def test_a_test_without_a_match_is_one_line(sides):
  with pytest.raises(EvaluationError, match=r"^no query has a match: of the \d queries") as error:
    check_matches(*sides)
  assert "\n" not in str(error.value)


def test_cameras_are_named():
  query, gallery = _identities((1, 7)), _identities(*((1, 7), (2, 5), (3, 6)))
  with pytest.raises(EvaluationError, match=r"cameras are 7, .* its cameras are 5, 6, 7\."):
    check_matches(query, gallery)


def test_the_answer_is_that_of_the_ranking():
  """Of small random sets about half have a match; the ranking finds it by other means."""
  random = np.random.default_rng(0)
  answers = set()
  for _ in range(200):
    query, gallery = (
      Identities(random.integers(-1, 6, n), random.integers(0, 3, n)) for n in (2, 4)
    )
    has_match = len(PersonIndex(query, gallery).matches(0, 2).query_row) > 0
    answers.add(has_match)
    if has_match:
      check_matches(query, gallery)
    else:
      with pytest.raises(EvaluationError, match="no query has a match"):
        check_matches(query, gallery)
  assert answers == {True, False}


@pytest.mark.parametrize("field", Identities._fields)
@pytest.mark.parametrize("number", [2**31, 7 + 2**32, -(2**31) - 1, np.uint64(2**63)])
def test_numbers_that_would_wrap_around_are_refused(field, number):
  query, gallery = _identities((7, 1)), _identities((7, 2))
  ids = np.array([number])
  embeddings = np.ones((1, 1), np.float32)
  with pytest.raises(EvaluationError, match=f"gallery.{field}: {number} in row 0 is outside"):
    evaluate_ranking(embeddings, embeddings, query, gallery._replace(**{field: ids}))


def test_an_image_that_is_query_and_gallery_leaves_itself_out():
  """By the convention: it is of the query's person and camera."""
  both = _identities((1, 1), (1, 2), (2, 1), (2, 2))
  vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.8, 0.6]], np.float32)
  metrics = evaluate_ranking(vectors, vectors, both, both)
  assert metrics.num_queries == 4
  # Each finds the other's wrong image before its person's; were it to find itself, all were right.
  assert metrics.cmc[0] == 0.0
  assert metrics.cmc[2] == 1.0
