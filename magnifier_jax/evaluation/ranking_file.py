"""The first gallery images of each query, as a table for other programs."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magnifier_jax.evaluation.embeddings_file import IdentifiedEmbeddings
from magnifier_jax.evaluation.ranking import nearest
from magnifier_jax.files.whole_file import write_text

_ABOUT_IMAGE = ("", "_row", "_person", "_camera")
_HEADING = (
  *(f"query{what}" for what in _ABOUT_IMAGE),
  "rank",
  *(f"gallery{what}" for what in _ABOUT_IMAGE),
  "distance",
  "correct",
)


def write_ranking(
  path: Path, query: IdentifiedEmbeddings, gallery: IdentifiedEmbeddings, k: int
) -> None:
  """Writes a CSV file with a row for each of the first k gallery images of each query.

  What a query ignores has no rank: its own person before its own camera, and junk. Distances are
  squared Euclidean, of the whole embeddings.

  Args:
    path: of the file.
    query: embeddings, identities and perhaps paths of the queries.
    gallery: likewise of the gallery.
    k: images a query; fewer where the gallery has fewer.

  Raises:
    WriteError: when it cannot be written.
  """
  stream = io.StringIO()
  writer = csv.writer(stream, lineterminator="\n")
  writer.writerow(_HEADING)
  writer.writerows(_rows(query, gallery, k))
  write_text(path, stream.getvalue())


def _rows(
  query: IdentifiedEmbeddings, gallery: IdentifiedEmbeddings, k: int
) -> Iterator[tuple[Any, ...]]:
  sides = [side.embeddings.whole() for side in (query, gallery)]
  found = nearest(*sides, query.identities, gallery.identities, min(k, len(sides[1])))
  for row, columns in enumerate(zip(found.index, found.distance, found.valid)):
    asked = _about(query, row)
    for rank, (index, distance, valid) in enumerate(zip(*columns), start=1):
      if valid:
        answer = _about(gallery, int(index))
        yield *asked, rank, *answer, f"{distance:.6f}", int(asked[2] == answer[2])


def _about(side: IdentifiedEmbeddings, row: int) -> tuple[str, int, int, int]:
  """Returns path, row, person and camera of an image."""
  person, camera = (int(values[row]) for values in side.identities)
  return "" if side.paths is None else side.paths[row], row, person, camera
