"""What a search found."""

from collections.abc import Sequence
from typing import NamedTuple

from magnifier_jax.errors import UserError
from magnifier_jax.evaluation.pair_distances import OperatingPoint
from magnifier_jax.retrieval.gallery_rows import Match
from magnifier_jax.retrieval.images import Failure


class SearchError(UserError):
  """A search cannot be done as it was asked for."""


class Query(NamedTuple):
  """What was searched for, and what was found, nearest first.

  Attributes:
    path: of the image; '' where it is not from a file.
    name: for people: the path, or the row of a gallery.
    person: '' where it is not known, as for the camera.
    camera: see `person`.
    matches: rows of the gallery.
    reranked_distances: of the matches, in their order, 0 to 1; None without re-ranking.
  """

  path: str
  name: str
  person: str
  camera: str
  matches: Sequence[Match]
  reranked_distances: Sequence[float] | None = None


class SearchResult(NamedTuple):
  """A search.

  Attributes:
    gallery: its path.
    network: description.
    searched: rows, or tracklets, that each query was compared with.
    pooled: whether tracklets were.
    queries: in order.
    failed: query images that could not be embedded.
    threshold: below which two images are taken for one person; None where none was calibrated.
    calibrated_on: data set, people and numbers of pairs; '' likewise.
    notes: what must be known about the results, a sentence each.
  """

  gallery: str
  network: str
  searched: int
  pooled: bool
  queries: Sequence[Query]
  failed: Sequence[Failure]
  threshold: OperatingPoint | None
  calibrated_on: str
  notes: Sequence[str] = ()

  @property
  def expected_false_accepts(self) -> float | None:
    """How many rows of other people a query finds below the threshold, on average."""
    return None if self.threshold is None else self.threshold.false_accept_rate * self.searched

  def is_below(self, match: Match) -> bool | None:
    """Returns whether a match is below the threshold; None where there is none."""
    return None if self.threshold is None else match.distance < self.threshold.distance_threshold
