"""Who matches whom: the camera and junk rules that every evaluation number rests on.

A query's matches are the gallery images of its person from other cameras. It ignores its person's
images from its own camera, and every junk image (person −1), as if they were not there. All other
images, distractors included, are impostors.
"""

from typing import NamedTuple

import numpy as np

from magnifier_jax.errors import UserError

JUNK_PERSON_ID = -1
NO_CAMERA_ID = -1  # nobody knows which it was

_NAMED_CAMERAS = 10


class EvaluationError(UserError):
  """Embeddings, identities or options that cannot be evaluated."""


class Identities(NamedTuple):
  """The person and the camera of each row of an embedding matrix.

  Attributes:
    person_id: [N] int32; −1 is junk, which is never matched and never counts. A distractor is any
      person who is in no query (0 in Market-1501).
    camera_id: [N] int32; −1 where it is unknown. `protocol` has a number of the image in its place
      where cameras are ignored, so that a query ignores its own image alone.
  """

  person_id: np.ndarray
  camera_id: np.ndarray


class Pairs(NamedTuple):
  """Pairs of a block of queries with gallery images, by query, then by gallery row.

  Attributes:
    query_row: [pairs] int64, counted from the block's first query.
    gallery_row: [pairs] int64.
  """

  query_row: np.ndarray
  gallery_row: np.ndarray


class PersonIndex:
  """Gallery rows by person, for looking up one block of queries after the other.

  Attributes:
    query: [Q] identities.
    gallery: [G] identities.
    junk_gallery: [junk] int64, gallery rows that every query ignores.
    max_same_person: gallery images of the person who has most among those that are queried.
  """

  def __init__(self, query: Identities, gallery: Identities):
    self.query = query
    self.gallery = gallery
    self.junk_gallery = np.flatnonzero(gallery.person_id == JUNK_PERSON_ID)
    self._gallery_rows = np.argsort(gallery.person_id, kind="stable")
    people = gallery.person_id[self._gallery_rows]
    self._first = np.searchsorted(people, query.person_id, side="left")
    self._count = np.searchsorted(people, query.person_id, side="right") - self._first
    self._count[query.person_id == JUNK_PERSON_ID] = 0
    self.max_same_person = int(self._count.max())

  @property
  def num_queries(self) -> int:
    return len(self.query.person_id)

  @property
  def num_gallery(self) -> int:
    return len(self.gallery.person_id)

  def matches(self, start: int, stop: int) -> Pairs:
    """Returns the pairs of one person seen by two cameras, of queries `start` to `stop`."""
    pairs, same_camera = self._same_person(start, stop)
    return Pairs(*(rows[~same_camera] for rows in pairs))

  def same_camera(self, start: int, stop: int) -> Pairs:
    """Returns the pairs of one person seen by one camera, which are ignored."""
    pairs, same_camera = self._same_person(start, stop)
    return Pairs(*(rows[same_camera] for rows in pairs))

  def junk_queries(self, start: int, stop: int) -> np.ndarray:
    """Returns the rows of junk queries, counted from `start`; all their pairs are ignored."""
    return np.flatnonzero(self.query.person_id[start:stop] == JUNK_PERSON_ID)

  def _same_person(self, start: int, stop: int) -> tuple[Pairs, np.ndarray]:
    """Returns all pairs of one person, and which of them are of one camera."""
    count = self._count[start:stop]
    query_row = np.repeat(np.arange(stop - start), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    gallery_row = self._gallery_rows[np.repeat(self._first[start:stop], count) + within]
    query_camera = self.query.camera_id[start:stop][query_row]
    return Pairs(query_row, gallery_row), self.gallery.camera_id[gallery_row] == query_camera


def check_matches(query: Identities, gallery: Identities) -> None:
  """Checks that something can be evaluated, before any image is embedded.

  Raises:
    EvaluationError: when no query has a match.
  """
  if not has_match(query, gallery).any():
    raise EvaluationError(
      f"no query has a match: of the {len(query.person_id)} queries, whose cameras are "
      f"{_cameras(query)}, nobody is in the gallery from another camera; its cameras are "
      f"{_cameras(gallery)}. Put images of the queries' people from other cameras there"
    )


def has_match(query: Identities, gallery: Identities) -> np.ndarray:
  """Returns whether another camera saw each query's person, [Q] bool."""
  known = gallery.person_id != JUNK_PERSON_ID
  people, person = np.unique(gallery.person_id[known], return_inverse=True)
  camera = gallery.camera_id[known]
  # The gallery's cameras of a person are all the query's own just when the ends of their range are.
  lowest = np.full(len(people), np.iinfo(camera.dtype).max, camera.dtype)
  highest = np.full(len(people), np.iinfo(camera.dtype).min, camera.dtype)
  np.minimum.at(lowest, person, camera)
  np.maximum.at(highest, person, camera)
  place = np.searchsorted(people, query.person_id)
  found = np.append(people, JUNK_PERSON_ID)[place] == query.person_id
  found &= query.person_id != JUNK_PERSON_ID
  place = np.where(found, place, 0)
  other = np.zeros(len(place), bool)
  if len(people):
    other = (lowest[place] != query.camera_id) | (highest[place] != query.camera_id)
  return found & other


def _cameras(identities: Identities) -> str:
  cameras = np.unique(identities.camera_id)
  return ", ".join(map(str, cameras[:_NAMED_CAMERAS])) + ", …" * (len(cameras) > _NAMED_CAMERAS)


def check_identities(identities: Identities, num_rows: int, name: str) -> Identities:
  """Returns int32 identities of exactly `num_rows` rows.

  Args:
    identities: the arrays to check.
    num_rows: rows of the embedding matrix that they describe.
    name: 'query' or 'gallery', for the message.

  Raises:
    EvaluationError: if an array is not a vector of `num_rows` whole numbers that int32 can hold.
  """
  if num_rows == 0:
    raise EvaluationError(f"{name}: there are no images; the {name} set must not be empty")
  return Identities(
    *(
      _check_ids(getattr(identities, field), num_rows, f"{name}.{field}")
      for field in Identities._fields
    )
  )


def _check_ids(values: np.ndarray, num_rows: int, name: str) -> np.ndarray:
  values = np.asarray(values)
  if values.shape != (num_rows,):
    raise EvaluationError(
      f"{name}: expected one number for each of the {num_rows} embeddings, "
      f"got an array of shape {values.shape}"
    )
  if not np.issubdtype(values.dtype, np.integer):
    raise EvaluationError(f"{name}: must be whole numbers, got {values.dtype}")
  limits = np.iinfo(np.int32)
  outside = np.flatnonzero((values < limits.min) | (values > limits.max))
  if outside.size:
    raise EvaluationError(
      f"{name}: {values[outside[0]]} in row {outside[0]} is outside {limits.min}…{limits.max}; "
      "number from 0"
    )
  return values.astype(np.int32)
