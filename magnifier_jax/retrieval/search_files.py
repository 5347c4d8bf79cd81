"""Writes what a search found: JSON for programs, CSV for spreadsheets, a page for people."""

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magnifier_jax.files.whole_file import write_text
from magnifier_jax.retrieval.gallery_rows import Match
from magnifier_jax.retrieval.search_page import render_page
from magnifier_jax.retrieval.search_results import Query, SearchError, SearchResult

SUFFIXES = (".html", ".json", ".csv")


def check_suffix(path: Path) -> None:
  """Checks that a file's name says which format it is to have.

  Raises:
    SearchError: when it does not.
  """
  if path.suffix not in SUFFIXES:
    raise SearchError(f"--output: {path} must end in one of {', '.join(SUFFIXES)}")


def write_result(result: SearchResult, path: Path) -> None:
  """Writes a result in the format that the name of the file asks for, whole or not at all.

  Raises:
    SearchError: when the format is none of `SUFFIXES`.
    WriteError: when the file cannot be written.
  """
  check_suffix(path)
  if path.suffix == ".html":
    write_text(path, render_page(result))
  elif path.suffix == ".json":
    write_text(path, json.dumps(as_json(result), indent=2, allow_nan=False) + "\n")
  else:
    write_text(path, as_csv(result))


def as_json(result: SearchResult) -> dict[str, Any]:
  """Returns a result in plain lists and dicts; what is not known is null."""
  threshold = result.threshold
  return {
    "gallery": result.gallery,
    "network": result.network,
    "searched": result.searched,
    "tracklets": result.pooled,
    "false_accept_rate": threshold and threshold.false_accept_rate,
    "threshold": threshold and threshold.distance_threshold,
    "calibrated_on": result.calibrated_on or None,
    "expected_false_accepts": result.expected_false_accepts,
    "notes": list(result.notes),
    "queries": [
      {
        "query": query.name,
        "path": query.path or None,
        "person": query.person or None,
        "camera": query.camera or None,
        "matches": list(_matches(result, query)),
      }
      for query in result.queries
    ],
    "failed": [failure._asdict() for failure in result.failed],
  }


def as_csv(result: SearchResult) -> str:
  """Returns a row for each match, with a heading; what is not known is empty."""
  stream = io.StringIO()
  branches = list(dict.fromkeys(b for q in result.queries for m in q.matches for b in _branches(m)))
  plain = ("rank", "path", "person", "camera", "time", "track", "images", "row", "sha256")
  heading = ["query", *plain, "distance", "below_threshold", "reranked_distance", *branches]
  writer = csv.DictWriter(stream, heading, extrasaction="ignore", lineterminator="\n")
  writer.writeheader()
  for query in result.queries:
    for rank, (match, row) in enumerate(zip(query.matches, _matches(result, query)), start=1):
      writer.writerow({"query": query.name, "rank": rank, **row, **_branches(match)})
  return stream.getvalue()


def _branches(match: Match) -> dict[str, float]:
  return {f"distance_{name}": value for name, value in match.branch_distances.items()}


def _matches(result: SearchResult, query: Query) -> Iterator[dict[str, Any]]:
  """Yields what is known of each match; None is not known."""
  for i, match in enumerate(query.matches):
    known = match._asdict() | {"time": None if math.isnan(match.time) else match.time}
    reranked = query.reranked_distances
    yield {name: None if value == "" else value for name, value in known.items()} | {
      "below_threshold": result.is_below(match),
      "reranked_distance": None if reranked is None else reranked[i],
    }
