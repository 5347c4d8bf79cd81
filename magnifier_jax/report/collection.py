"""Puts a run's report together: its numbers, its curves, its queries and its parts."""

import datetime
import importlib.metadata
import io
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from magnifier_jax.config import Config
from magnifier_jax.data.dataset import ReidDataset, ReidSplit
from magnifier_jax.embed_dataset import TestEmbeddings, identities
from magnifier_jax.evaluation.ranking import DistanceHistogram, Nearest, RankingMetrics, nearest
from magnifier_jax.report.contents import (
  OperatingPoint,
  PairDistances,
  PartOverlay,
  QueryCase,
  ReportData,
  ResultRow,
  RetrievedImage,
)
from magnifier_jax.report.reference_settings import differences_from_reference, published_row
from magnifier_jax.workdir.metrics_log import read_records

_CASES = 4  # queries of each kind
_RESULTS = 10  # gallery images of a query
_OVERLAYS = 6
_BINS_JOINED = 4
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def report_data(
  config: Config,
  workdir: Path,
  step: int,
  dataset: ReidDataset,
  embeddings: TestEmbeddings,
  results: Mapping[str, RankingMetrics],
  query_parts: np.ndarray | None,
) -> ReportData:
  """Returns what the report of an evaluated run shows.

  Args:
    config: of the run.
    workdir: whose `metrics.jsonl` has the curves.
    step: updates that the evaluated network has seen.
    dataset: the images.
    embeddings: of both splits.
    results: {row: metrics}; the first is of the whole embedding.
    query_parts: parts predicted on the first queries, [n, h, w] uint8; None without a head for it.
  """
  metrics = next(iter(results.values()))
  return ReportData(
    title=f"{config.name}: {config.data.dataset}",
    facts=_facts(config, step),
    results=tuple(
      ResultRow(name, row.summary(), row.cmc, published_row(config.to_dict(), name))
      for name, row in results.items()
    ),
    num_queries=metrics.num_queries,
    num_skipped_queries=metrics.num_skipped_queries,
    num_gallery=len(dataset.gallery),
    published=config.published,
    published_source=config.published_source,
    distances=_pair_distances(metrics.histogram),
    operating_points=tuple(OperatingPoint(*rate) for rate in metrics.true_accept_rates),
    training_log=read_records(workdir),
    queries=_query_cases(dataset, embeddings, metrics.average_precision),
    overlays=_overlays(dataset.query, query_parts),
  )


def _facts(config: Config, step: int) -> dict[str, str]:
  devices = jax.devices()
  differences = differences_from_reference(config.to_dict())
  versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
  return {
    "data set": config.data.dataset,
    "step": str(step),
    "seed": str(config.seed),
    "embedding": "image and its mirror image, added" if config.evaluation.flip else "image",
    "differs from the authors' code in": "\n".join(differences) or "nothing",
    "versions": ", ".join(versions),
    "devices": f"{len(devices)} × {devices[0].device_kind}",
    "date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    "command": "python -m magnifier_jax.main " + shlex.join(sys.argv[1:]),
  }


def _pair_distances(histogram: DistanceHistogram) -> PairDistances:
  """Returns a quarter of the bins: a test set has too few genuine pairs to fill them all."""
  genuine, impostor = (
    counts.reshape(-1, _BINS_JOINED).sum(axis=1)
    for counts in (histogram.genuine, histogram.impostor)
  )
  edges = histogram.edges[::_BINS_JOINED]
  return PairDistances(genuine, impostor, edges, "squared Euclidean distance")


def _query_cases(
  dataset: ReidDataset, embeddings: TestEmbeddings, average_precision: np.ndarray
) -> tuple[QueryCase, ...]:
  """Returns the best, the median and the worst queries, by average precision, then by order."""
  evaluated = np.flatnonzero(~np.isnan(average_precision))
  order = evaluated[np.argsort(-average_precision[evaluated], kind="stable")]
  middle = max(0, len(order) // 2 - _CASES // 2)
  rows = {
    "best": order[:_CASES],
    "median": order[middle : middle + _CASES],
    "worst": order[::-1][:_CASES],
  }
  chosen = np.concatenate(list(rows.values()))
  everyone = identities(dataset.query)
  found = nearest(
    embeddings.query.whole()[chosen],
    embeddings.gallery.whole(),
    type(everyone)(everyone.person_id[chosen], everyone.camera_id[chosen]),
    identities(dataset.gallery),
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
  return np.asarray(Image.open(io.BytesIO(split.encoded(row).image)).convert("RGB"))


def _part_labels(split: ReidSplit, row: int) -> np.ndarray | None:
  """Returns the given parts of an image; None for background alone, which stands in for none."""
  labels = np.asarray(Image.open(io.BytesIO(split.encoded(row).part_labels)))
  return labels if labels.any() else None
