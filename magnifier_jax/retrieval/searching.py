"""Searches a gallery for images, or for the rows of another one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from magnifier_jax.evaluation.distances import smallest
from magnifier_jax.evaluation.pair_distances import OperatingPoint
from magnifier_jax.evaluation.reranking import reranked_distances
from magnifier_jax.evaluation.thresholds import ThresholdError
from magnifier_jax.retrieval.embedder import Embedder
from magnifier_jax.retrieval.gallery import Gallery
from magnifier_jax.retrieval.gallery_files import MANIFEST
from magnifier_jax.retrieval.images import Failure
from magnifier_jax.retrieval.listed_images import list_images
from magnifier_jax.retrieval.nearest import NearestRows, nearest_rows
from magnifier_jax.retrieval.network import name_of
from magnifier_jax.retrieval.search_results import Query, SearchError, SearchResult
from magnifier_jax.retrieval.tracklets import Tracklets

DEFAULT_FAR = 1e-3
_MAX_RERANKED = 30_000  # rows that are all compared with one another


class SearchOptions(NamedTuple):
  """How to search.

  Attributes:
    k: matches of each query, at most.
    exclude_cameras: whose rows are left out.
    time: rows from the first to the second, both included; None for all.
    far: false-accept rate of the threshold; None for 0.001, if that was calibrated.
    rerank: whether matches are in the order of k-reciprocal re-ranking.
    pool_tracks: whether the images of a track are searched as one.
  """

  k: int = 10
  exclude_cameras: tuple[str, ...] = ()
  time: tuple[float, float] | None = None
  far: float | None = None
  rerank: bool = False
  pool_tracks: bool = False


class Queries(NamedTuple):
  """Embedded queries: one row each.

  Attributes:
    vectors: [Q, D] float32, L2-normalised.
    path: of the images; '' where one is not from a file.
    name: for people.
    person: '' where it is not known.
    camera: likewise.
    failed: images that could not be embedded.
  """

  vectors: np.ndarray
  path: list[str]
  name: list[str]
  person: list[str]
  camera: list[str]
  failed: tuple[Failure, ...] = ()


def read_queries(
  source: Path, gallery: Gallery, open_network: Callable[[], Embedder], pool_tracks: bool
) -> Queries:
  """Reads what to search for.

  Args:
    source: an image, a folder, a CSV file, or a gallery.
    gallery: to be searched, whose network the queries must be of.
    open_network: opens that network; called only where images must be embedded.
    pool_tracks: whether the tracks of a gallery are one query each.

  Raises:
    SourceError, GalleryError: when there is nothing to search for, or it is of another network.
    SearchError: when no image could be embedded.
  """
  if (source / MANIFEST).exists():
    return _queries_of_gallery(Gallery.open(source), gallery, pool_tracks)
  images = list_images(source).images
  embedder = open_network()
  network = embedder.network
  gallery.check_network(network.weights_sha256, network.branches, name_of(network))
  embedded = embedder.embed(image.path for image in images)
  if not len(embedded):
    raise SearchError(f"--query: {embedded.failed[0]}")
  known = [images[i] for i in embedded.position]
  return Queries(
    embedded.whole,
    path=[image.path for image in known],
    name=[image.path for image in known],
    person=[image.person for image in known],
    camera=[image.camera for image in known],
    failed=embedded.failed,
  )


def _queries_of_gallery(asking: Gallery, gallery: Gallery, pool_tracks: bool) -> Queries:
  gallery.check_network(asking.weights_sha256, asking.branches, str(asking.folder))
  keep = asking.keep()
  rows = np.flatnonzero(keep)
  if pool_tracks:
    tracklets = asking.pooled(keep)
    rows, vectors = tracklets.medoid, tracklets.vectors
  else:
    vectors = np.concatenate(asking.shards)
  path, person, camera = (
    asking.column(name)[rows].tolist() for name in ("path", "person", "camera")
  )
  name = [file or f"row {row}" for row, file in zip(rows, path)]
  return Queries(vectors, path, name, person, camera)


def search(gallery: Gallery, queries: Queries, options: SearchOptions) -> SearchResult:
  """Finds the nearest rows of a gallery to each query.

  Raises:
    GalleryError: when filters leave nothing to search.
    ThresholdError: when the false-accept rate that was asked for was not calibrated.
    SearchError: when there are too many rows to re-rank, or k is not positive.
  """
  if options.k < 1:
    raise SearchError(f"--k: must be at least 1, got {options.k}")
  threshold, calibrated_on, notes = _threshold(gallery, options.far)
  keep = gallery.keep(list(options.exclude_cameras), options.time)
  tracklets = gallery.pooled(keep) if options.pool_tracks else None
  found, reranked = _nearest(gallery, queries.vectors, keep, tracklets, options)
  matches = gallery.matches(queries.vectors, found, tracklets)
  return SearchResult(
    gallery=str(gallery.folder),
    network=gallery.network,
    searched=int(keep.sum()) if tracklets is None else len(tracklets.size),
    pooled=options.pool_tracks,
    queries=[
      Query(*about, matches[i], None if reranked is None else reranked[i].tolist())
      for i, about in enumerate(zip(*queries[1:5]))
    ],
    failed=queries.failed,
    threshold=threshold,
    calibrated_on=calibrated_on,
    notes=[*notes, *_notes(gallery, options, threshold is not None)],
  )


def _notes(gallery: Gallery, options: SearchOptions, has_threshold: bool) -> Iterator[str]:
  """Yields what must be known about the results."""
  strange = set(options.exclude_cameras) - set(gallery.column("camera").tolist())
  for camera in sorted(strange):
    yield f"No row is of camera {camera}, which was to be left out."
  if options.rerank:
    yield "In the order of k-reciprocal re-ranking; thresholds are of the plain distances."
  if options.pool_tracks and has_threshold:
    yield "The threshold was calibrated on single images, not on tracklets."


def _threshold(gallery: Gallery, far: float | None) -> tuple[OperatingPoint | None, str, list[str]]:
  """Returns the threshold, whom it was calibrated on, and what to say where there is none."""
  try:
    thresholds = gallery.thresholds
    return thresholds.at(DEFAULT_FAR if far is None else far), thresholds.calibrated_on, []
  except ThresholdError as error:
    if far is not None:
      raise
    return None, "", [f"No threshold: {error}."]


def _nearest(
  gallery: Gallery,
  queries: np.ndarray,
  keep: np.ndarray,
  tracklets: Tracklets | None,
  options: SearchOptions,
) -> tuple[NearestRows, np.ndarray | None]:
  """Returns the first rows, or tracklets, for each query; and their re-ranked distances if any."""
  rows = np.flatnonzero(keep) if tracklets is None else np.arange(len(tracklets.size))
  k = min(options.k, len(rows))
  if not options.rerank and tracklets is None:
    return nearest_rows(gallery.shards, queries, k, keep), None
  if not options.rerank:
    return nearest_rows([tracklets.vectors], queries, k), None
  if len(rows) + len(queries) > _MAX_RERANKED:
    raise SearchError(
      f"--rerank: it compares all images with one another, and there are "
      f"{len(rows) + len(queries):,}; up to {_MAX_RERANKED:,} are possible: filter the gallery, or "
      "search without it"
    )
  vectors = gallery.vectors(rows) if tracklets is None else tracklets.vectors
  return _reranked(queries, vectors, rows, k)


def _reranked(
  queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, k: int
) -> tuple[NearestRows, np.ndarray]:
  """Returns the first k by re-ranked distance, with their plain distances, and the former."""
  found, distances, reranked = [], [], []
  for block in reranked_distances(queries, vectors):
    for distances_of_query in block:
      columns = smallest(distances_of_query[None], k)[0]
      query = queries[len(found)]
      found.append(rows[columns])
      distances.append(np.square(vectors[columns] - query).sum(axis=1))
      reranked.append(distances_of_query[columns])
  return NearestRows(np.stack(found), np.stack(distances)), np.stack(reranked)
