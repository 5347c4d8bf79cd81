"""Puts a run's report together: its numbers, its curves, its queries and its parts."""

import datetime
import importlib.metadata
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from magnifier_jax.data.dataset import ReidDataset, ReidSplit
from magnifier_jax.data.image_files import decode_image, decode_part_labels
from magnifier_jax.embed_dataset import TestEmbeddings
from magnifier_jax.evaluation.protocol import SINGLE_SHOT, Protocol
from magnifier_jax.evaluation.ranking import Nearest, RankingMetrics, nearest
from magnifier_jax.report.contents import (
  PartOverlay,
  QueryCase,
  ReportData,
  ResultRow,
  RetrievedImage,
)
from magnifier_jax.report.provenance import Provenance
from magnifier_jax.report.published import joined_names, published_row
from magnifier_jax.report.reference_settings import differences_from_reference
from magnifier_jax.workdir.metrics_log import read_records
from magnifier_jax.workdir.origin import ORIGIN
from magnifier_jax.workdir.training_data import read_training_data

_CASES = 4  # queries of each kind
_RESULTS = 10  # gallery images of a query
_OVERLAYS = 6
_BINS_JOINED = 4  # a test set has too few genuine pairs to fill all bins
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def report_data(
  source: Provenance,
  workdir: Path,
  dataset: ReidDataset,
  protocol: Protocol,
  embeddings: TestEmbeddings,
  results: Mapping[str, RankingMetrics],
  query_parts: np.ndarray | None,
) -> ReportData:
  """Returns what the report of an evaluated run shows.

  Args:
    source: which network it is, and on whom it was measured.
    workdir: whose `metrics.jsonl` has the curves.
    dataset: the images.
    protocol: by which they were measured.
    embeddings: of both splits.
    results: {row: metrics}; the first is of the whole embedding.
    query_parts: parts predicted on the first queries, [n, h, w] uint8; None without a head for it.
  """
  metrics = next(iter(results.values()))
  published = source.published()
  return ReportData(
    title=_title(source),
    rule=source.rule(),
    notes=tuple(source.notes()),
    facts=_facts(source, workdir),
    results=tuple(
      ResultRow(name, row.summary(), row.cmc, published_row(source.settings, name, published))
      for name, row in results.items()
    ),
    num_queries=metrics.num_queries,
    num_skipped_queries=metrics.num_skipped_queries,
    num_gallery=len(dataset.gallery),
    published=published,
    distances=metrics.pair_distances.joined(_BINS_JOINED),
    operating_points=metrics.operating_points,
    training_log=read_records(workdir),
    queries=_query_cases(dataset, protocol, embeddings, metrics.average_precision),
    overlays=_overlays(dataset.query, query_parts),
  )


def _title(source: Provenance) -> str:
  name, trained_on = source.settings["name"], joined_names(source.trained_on)
  if source.on_other_data:
    return f"{name}: trained on {trained_on}, tested on {source.test_set}"
  return f"{name}: {trained_on}"


def _facts(source: Provenance, workdir: Path) -> dict[str, str]:
  devices = jax.devices()
  settings = source.settings
  differences = differences_from_reference(settings)
  versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
  return {
    "trained on": "\n".join(read_training_data(workdir)) or joined_names(source.trained_on),
    "tested on": source.test_set,
    "step": _steps(source),
    "seed": str(settings["seed"]),
    "first weights": _first_weights(workdir),
    "embedding": "image and its mirror image, added" if source.flip else "image",
    "differs from the authors' code in": "\n".join(differences) or "nothing",
    "versions": ", ".join(versions),
    "devices": f"{len(devices)} × {devices[0].device_kind}",
    "date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    "command": "python -m magnifier_jax.main " + shlex.join(sys.argv[1:]),
  }


def _steps(source: Provenance) -> str:
  if not source.planned_steps:
    return f"{source.step}; these weights were not trained here"
  return f"{source.step} of {source.planned_steps}"


def _first_weights(workdir: Path) -> str:
  """Returns what training, or a conversion, started from."""
  path = workdir / ORIGIN
  if not path.exists():
    return "drawn at random"
  try:
    origin = json.loads(path.read_text(encoding="utf-8"))
    return ", ".join(f"{name} {value}" for name, value in origin.items())
  except (OSError, ValueError, AttributeError):  # no reason to go without a report
    return f"{path} is damaged"


def _query_cases(
  dataset: ReidDataset,
  protocol: Protocol,
  embeddings: TestEmbeddings,
  average_precision: np.ndarray,
) -> tuple[QueryCase, ...]:
  """Returns the best, the median and the worst queries, by average precision, then by order.

  With galleries that are drawn there are none: a query has another list in each draw.
  """
  if protocol.rule == SINGLE_SHOT:
    return ()
  evaluated = np.flatnonzero(~np.isnan(average_precision))
  order = evaluated[np.argsort(-average_precision[evaluated], kind="stable")]
  middle = max(0, len(order) // 2 - _CASES // 2)
  rows = {
    "best": order[:_CASES],
    "median": order[middle : middle + _CASES],
    "worst": order[::-1][:_CASES],
  }
  chosen = np.concatenate(list(rows.values()))
  everyone = protocol.query
  found = nearest(
    embeddings.query.whole()[chosen],
    embeddings.gallery.whole(),
    type(everyone)(everyone.person_id[chosen], everyone.camera_id[chosen]),
    protocol.gallery,
    min(_RESULTS, len(dataset.gallery)),
  )
  kinds = [kind for kind, indices in rows.items() for _ in indices]
  return tuple(
    _query_case(kind, dataset, int(row), float(average_precision[row]), i, found)
    for i, (kind, row) in enumerate(zip(kinds, chosen))
  )


def _query_case(
  kind: str, dataset: ReidDataset, row: int, average_precision: float, i: int, found: Nearest
) -> QueryCase:
  person_id = int(dataset.query.person_id[row])
  gallery = dataset.gallery
  return QueryCase(
    kind=kind,
    average_precision=average_precision,
    image=_picture(dataset.query, row),
    person_id=person_id,
    camera_id=int(dataset.query.camera_id[row]),
    results=tuple(
      RetrievedImage(
        image=_picture(gallery, int(index)),
        person_id=int(gallery.person_id[index]),
        camera_id=int(gallery.camera_id[index]),
        distance=float(distance),
        correct=int(gallery.person_id[index]) == person_id,
      )
      for index, distance, valid in zip(found.index[i], found.distance[i], found.valid[i])
      if valid
    ),
  )


def _overlays(query: ReidSplit, parts: np.ndarray | None) -> tuple[PartOverlay, ...]:
  """Returns predicted and given parts of some queries; none without a segmentation head."""
  if parts is None:
    return ()
  rows = np.unique(np.linspace(0, len(parts) - 1, _OVERLAYS).astype(int))
  return tuple(
    PartOverlay(_picture(query, int(row)), parts[row], _part_labels(query, int(row)))
    for row in rows
  )


def _picture(split: ReidSplit, row: int) -> np.ndarray:
  return decode_image(split.encoded(row).image)


def _part_labels(split: ReidSplit, row: int) -> np.ndarray | None:
  """Returns the given parts of an image; None for background alone, which stands in for none."""
  labels = decode_part_labels(split.encoded(row).part_labels)
  return labels if labels.any() else None
