"""What a gallery knows of each of its rows: taken in from Python values, and given out."""

import datetime
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa

from magnifier_jax.retrieval.embedded import EmbeddedImages
from magnifier_jax.retrieval.gallery_files import SCHEMA, GalleryError

Value = TypeVar("Value")
OneOrEach: TypeAlias = Value | Sequence[Value | None] | None
Name: TypeAlias = str | int
Time: TypeAlias = float | datetime.datetime


class Match(NamedTuple):
  """A row of a gallery that was found.

  Attributes:
    row: of the gallery, from 0; of a tracklet its medoid's.
    path: of the image; '' where it is not from a file.
    sha256: of that file; '' likewise.
    person: '' where it is not known, and so for the camera and the track.
    camera: see `person`.
    time: seconds since 1970, or in the unit of whoever added it; NaN where it is not known.
    track: see `person`.
    distance: squared Euclidean, to the query.
    branch_distances: {branch: squared Euclidean distance of that branch alone}.
    images: how many were pooled; 1 without pooling.
  """

  row: int
  path: str
  sha256: str
  person: str
  camera: str
  time: float
  track: str
  distance: float
  branch_distances: dict[str, float]
  images: int = 1


def rows_table(
  embedded: EmbeddedImages,
  person: OneOrEach[Name],
  camera: OneOrEach[Name],
  time: OneOrEach[Time],
  track: OneOrEach[Name],
) -> pa.Table:
  """Returns the rows of embedded images; the arguments are those of `Gallery.add`.

  Raises:
    GalleryError: when there are not as many values as images.
  """
  columns = {
    "path": [os.path.abspath(path) if path else None for path in embedded.path],
    "sha256": [digest or None for digest in embedded.sha256],
    "person": names(_each(person, embedded, "person")),
    "camera": names(_each(camera, embedded, "camera")),
    "time": [seconds(value) for value in _each(time, embedded, "time")],
    "track": names(_each(track, embedded, "track")),
  }
  return pa.table(columns, schema=SCHEMA)


def known_of(table: pa.Table, rows: np.ndarray) -> list[dict[str, Any]]:
  """Returns what a table says of some rows, by the names of `Match`."""
  return [
    {
      "row": int(row),
      **{name: "" if value is None else value for name, value in about.items()},
      "time": math.nan if about["time"] is None else about["time"],
    }
    for row, about in zip(rows, table.take(pa.array(rows, pa.int64())).to_pylist())
  ]


def _each(values: Any, embedded: EmbeddedImages, name: str) -> list[Any]:
  """Returns the value of each embedded image."""
  if values is None or isinstance(values, str | int | float | datetime.datetime | np.generic):
    return [values] * len(embedded)
  if len(values) != embedded.num_given:
    raise GalleryError(
      f"{name}: one value for all, or one for each of the {embedded.num_given} images that were "
      f"given to embed, got {len(values)}"
    )
  return [values[i] for i in embedded.position]


def names(values: Sequence[Any]) -> list[str | None]:
  """Returns names as text; None for those that are not known."""
  return [None if value is None or value == "" else str(value) for value in values]


def several_names(one_or_several: Name | Sequence[Name]) -> list[str]:
  """Returns one name, or several, as a list of text."""
  is_one = isinstance(one_or_several, str | int | np.integer)
  known = names([one_or_several] if is_one else one_or_several)
  return [name for name in known if name is not None]


def seconds(value: Time | None) -> float | None:
  """Returns a time as a number: of a datetime, seconds since 1970."""
  if isinstance(value, datetime.datetime):
    return value.timestamp()
  return None if value is None else float(value)
