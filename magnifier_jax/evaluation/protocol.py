"""What a test asks: which gallery images a query is compared with, by a rule about cameras.

The rankings know one rule: a query ignores its person's images of its own camera. Where cameras are
ignored, each image takes the place of a camera, so that a query ignores its own image alone.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from magnifier_jax.evaluation.identities import (
  JUNK_PERSON_ID,
  NO_CAMERA_ID,
  EvaluationError,
  Identities,
  check_matches,
  has_match,
)
from magnifier_jax.evaluation.ranking import (
  RankedBlocks,
  RankingMetrics,
  mean_metrics,
  rank_embeddings,
)
from magnifier_jax.evaluation.reranking import RerankingOptions, rank_reranked

CROSS_CAMERA, IGNORE, SINGLE_SHOT = "cross_camera", "ignore", "single_shot"
_FIELD = "config.evaluation.camera_rule"
_SAID = MappingProxyType(
  {
    CROSS_CAMERA: "A query ignores its person's images from its own camera",
    IGNORE: "Cameras are ignored: a query ignores only its own image, known by its contents",
    SINGLE_SHOT: (
      "Single shot, cameras ignored: the gallery is one random image of each person, the others "
      "are queries; mean of {} draws"
    ),
  }
)


def rule_in_words(rule: str, draws: int) -> str:
  """Returns what tables and reports say of a camera rule, a sentence that names it.

  Args:
    rule: `CROSS_CAMERA`, `IGNORE` or `SINGLE_SHOT`.
    draws: of the gallery, with the last one.
  """
  return f"{_SAID[rule].format(draws)} (camera_rule={rule})."


class ImageNumbers(NamedTuple):
  """Numbers of the test images; those with the same contents have the same number."""

  query: np.ndarray  # [Q] int32
  gallery: np.ndarray  # [G] int32


def image_numbers(query: Iterable[bytes], gallery: Iterable[bytes]) -> ImageNumbers:
  """Numbers the test images by their contents."""
  sides = [
    [hashlib.blake2b(image, digest_size=16).hexdigest() for image in side]
    for side in (query, gallery)
  ]
  _, numbers = np.unique(np.array([*sides[0], *sides[1]], str), return_inverse=True)
  return ImageNumbers(*np.split(numbers.astype(np.int32), [len(sides[0])]))


@dataclasses.dataclass(frozen=True)
class Protocol:
  """A test of some people.

  Attributes:
    query: identities of the queries, as the rankings take them: without cameras, the image's number
      takes the camera's place.
    gallery: likewise.
    rule: `CROSS_CAMERA`, `IGNORE` or `SINGLE_SHOT`.
    draws: of the gallery, with the last one.
  """

  query: Identities
  gallery: Identities
  rule: str = CROSS_CAMERA
  draws: int = 1

  def check(self) -> None:
    """Checks that something can be evaluated, before any image is embedded.

    Raises:
      EvaluationError: when no query has a match, or when the rule needs cameras that nobody knows.
    """
    if self.rule == CROSS_CAMERA:
      _check_cameras(self.query, self.gallery)
      check_matches(self.query, self.gallery)
    elif self.rule == IGNORE and not has_match(self.query, self.gallery).any():
      raise EvaluationError(
        f"no query has a match ({_FIELD}={self.rule}): of the {len(self.query.person_id)} queries, "
        "nobody has another image than the query itself in the gallery. Put images of the queries' "
        "people there"
      )
    elif self.rule == SINGLE_SHOT and not len(self._pool().queried):
      raise EvaluationError(
        f"no query has a match ({_FIELD}={self.rule}): each of the {len(self.query.person_id)} "
        "queries is the only image of its person. Put images of the queries' people into the "
        "gallery, or into the queries"
      )

  def evaluate(
    self,
    query_embeddings: np.ndarray,
    gallery_embeddings: np.ndarray,
    reranking: RerankingOptions | None = None,
  ) -> RankingMetrics:
    """Evaluates retrieval by embeddings.

    Args:
      query_embeddings: [Q, D] float32, L2-normalised.
      gallery_embeddings: [G, D] float32, L2-normalised.
      reranking: re-rank with these; None: do not.

    Returns:
      The metrics; of several draws the mean, with as many queries as one has. `average_precision`
      is then that of all draws' queries.

    Raises:
      EvaluationError: as `rank_embeddings`, and when no query has a match.
    """

    def rank(*arguments: np.ndarray | Identities) -> RankedBlocks:
      if reranking is None:
        return rank_embeddings(*arguments)
      return rank_reranked(*arguments, reranking)

    if self.rule != SINGLE_SHOT:
      return mean_metrics(rank(query_embeddings, gallery_embeddings, self.query, self.gallery))
    embeddings = np.concatenate([query_embeddings, gallery_embeddings])
    everybody = _joined(self.query, self.gallery)
    # Every draw has as many queries, so the mean over all of them is the mean of the draws.
    metrics = mean_metrics(
      block
      for draw in self.galleries()
      for block in rank(
        embeddings[draw.query],
        embeddings[draw.gallery],
        _rows(everybody, draw.query),
        _rows(everybody, draw.gallery),
      )
    )
    return dataclasses.replace(metrics, num_queries=metrics.num_queries // self.draws)

  def galleries(self) -> Iterator["DrawnGallery"]:
    """Yields the draws of a single-shot test; they are the same for every network."""
    pool = self._pool()
    for draw in range(self.draws):
      order = np.lexsort((np.random.default_rng(draw).random(len(pool.rows)), pool.person_id))
      in_gallery = np.zeros(len(order), bool)
      in_gallery[order[np.diff(pool.person_id[order], prepend=JUNK_PERSON_ID) != 0]] = True
      queried = ~in_gallery & np.isin(pool.person_id, pool.queried)
      yield DrawnGallery(pool.rows[queried], pool.rows[in_gallery])

  def _pool(self) -> "_Pool":
    everybody = _joined(self.query, self.gallery)
    # An image that is query and gallery is one image.
    who = np.stack([everybody.person_id, everybody.camera_id])
    rows = np.sort(np.unique(who, axis=1, return_index=True)[1])
    rows = rows[everybody.person_id[rows] != JUNK_PERSON_ID]
    people, count = np.unique(everybody.person_id[rows], return_counts=True)
    queried = np.intersect1d(people[count > 1], self.query.person_id)
    return _Pool(rows, everybody.person_id[rows], queried)


class DrawnGallery(NamedTuple):
  """One draw: rows of the queries and the gallery of the test, one after the other."""

  query: np.ndarray  # int64
  gallery: np.ndarray  # int64, one of each person


class _Pool(NamedTuple):
  """The images of a single-shot test."""

  rows: np.ndarray  # [N] int64, of queries and gallery, one after the other
  person_id: np.ndarray  # [N] int32
  queried: np.ndarray  # people of the queries with two images or more


def make_protocol(
  rule: str, query: Identities, gallery: Identities, images: ImageNumbers | None, draws: int
) -> Protocol:
  """Returns the test of some people by a rule.

  Args:
    rule: `CROSS_CAMERA`, `IGNORE` or `SINGLE_SHOT`.
    query: identities of the queries.
    gallery: identities of the gallery.
    images: numbers of the images; not needed with `CROSS_CAMERA`.
    draws: of the gallery, with `SINGLE_SHOT`.
  """
  if rule == CROSS_CAMERA:
    return Protocol(query, gallery)
  return Protocol(
    query._replace(camera_id=images.query),
    gallery._replace(camera_id=images.gallery),
    rule,
    draws if rule == SINGLE_SHOT else 1,
  )


def _check_cameras(query: Identities, gallery: Identities) -> None:
  unknown = sum(np.count_nonzero(side.camera_id == NO_CAMERA_ID) for side in (query, gallery))
  if unknown:
    everybody = len(query.person_id) + len(gallery.person_id)
    raise EvaluationError(
      f"{_FIELD}: the cameras of {unknown} of {everybody} test images are unknown; set it to "
      f"'{IGNORE}' or '{SINGLE_SHOT}', which need none, or name the cameras (the column camera of "
      "images.csv)"
    )


def _joined(query: Identities, gallery: Identities) -> Identities:
  return Identities(*(np.concatenate(columns) for columns in zip(query, gallery)))


def _rows(identities: Identities, rows: Sequence[int] | np.ndarray) -> Identities:
  return Identities(*(column[rows] for column in identities))
