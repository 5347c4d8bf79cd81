"""Searches a gallery for images, or for the rows of another one."""

from collections.abc import Callable, Iterator, Sequence
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
from magnifier_jax.retrieval.gallery_place import AnyGallery
from magnifier_jax.retrieval.gallery_rows import Match
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
    approximate: whether FAISS finds the candidates, in an index that is made where there is none.
    on_progress: is told what takes time.
    calibrated_on: data set of the threshold; None for the default, or the only one.
  """

  k: int = 10
  exclude_cameras: tuple[str, ...] = ()
  time: tuple[float, float] | None = None
  far: float | None = None
  rerank: bool = False
  pool_tracks: bool = False
  approximate: bool = False
  on_progress: Callable[[str], None] = lambda line: None
  calibrated_on: str | None = None


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
  source: Path, gallery: AnyGallery, open_network: Callable[[], Embedder], pool_tracks: bool
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


def _queries_of_gallery(asking: Gallery, gallery: AnyGallery, pool_tracks: bool) -> Queries:
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


def search(gallery: AnyGallery, queries: Queries, options: SearchOptions) -> SearchResult:
  """Finds the nearest rows of a gallery to each query.

  Raises:
    GalleryError: when filters leave nothing to search.
    ThresholdError: when the false-accept rate that was asked for was not calibrated.
    SearchError: when there are too many rows to re-rank, k is not positive, or options exclude one
      another.
    IndexingError: when an index is asked for that cannot be.
  """
  _check(gallery, options)
  threshold, calibrated_on, notes = _threshold(gallery, options.far, options.calibrated_on)
  if isinstance(gallery, Gallery):
    found = _search_folder(gallery, queries.vectors, options)
  else:
    filters = {"exclude_camera": list(options.exclude_cameras), "time": options.time}
    matches = gallery.search(queries.vectors, options.k, **filters)
    found = _Found(matches, gallery.count(**filters))
  return SearchResult(
    gallery=gallery.name,
    network=gallery.network,
    searched=found.searched,
    pooled=options.pool_tracks,
    queries=[
      Query(
        *about, found.matches[i], None if found.reranked is None else found.reranked[i].tolist()
      )
      for i, about in enumerate(zip(*queries[1:5]))
    ],
    failed=queries.failed,
    threshold=threshold,
    calibrated_on=calibrated_on,
    notes=[*notes, *found.notes, *_notes(gallery, options, threshold is not None)],
  )


class _Found(NamedTuple):
  """The matches of each query, and among how many rows or tracklets they were found."""

  matches: Sequence[list[Match]]
  searched: int
  reranked: np.ndarray | None = None
  notes: Sequence[str] = ()


def _check(gallery: AnyGallery, options: SearchOptions) -> None:
  if options.k < 1:
    raise SearchError(f"--k: must be at least 1, got {options.k}")
  asked = {"--rerank": options.rerank, "--tracks": options.pool_tracks}
  for option in (name for name, is_asked in asked.items() if is_asked):
    if not isinstance(gallery, Gallery):
      raise SearchError(f"{option}: only in a gallery that is a folder, {gallery.name} is not")
    if options.approximate:
      raise SearchError(f"{option}: compares all images; leave it or --index=ivf out")
  if options.approximate and not isinstance(gallery, Gallery):
    raise SearchError(
      f"--index=ivf: only in a gallery that is a folder; {gallery.name} has LanceDB's own indexes"
    )


def _search_folder(gallery: Gallery, queries: np.ndarray, options: SearchOptions) -> _Found:
  keep = gallery.keep(list(options.exclude_cameras), options.time)
  if options.approximate:
    index = gallery.index(options.on_progress)
    nearest = index.search(gallery.shards, queries, options.k, keep)
    return _Found(gallery.matches(queries, nearest), int(keep.sum()), None, [index.description])
  tracklets = gallery.pooled(keep) if options.pool_tracks else None
  nearest, reranked = _nearest(gallery, queries, keep, tracklets, options)
  searched = int(keep.sum()) if tracklets is None else len(tracklets.size)
  return _Found(gallery.matches(queries, nearest, tracklets), searched, reranked)


def _notes(gallery: AnyGallery, options: SearchOptions, has_threshold: bool) -> Iterator[str]:
  """Yields what must be known about the results."""
  excluded = set(options.exclude_cameras)
  strange = excluded - set(gallery.column("camera").tolist()) if excluded else ()
  for camera in sorted(strange):
    yield f"No row is of camera {camera}, which was to be left out."
  if options.rerank:
    yield "In the order of k-reciprocal re-ranking; thresholds are of the plain distances."
  if options.pool_tracks and has_threshold:
    yield "The threshold was calibrated on single images, not on tracklets."


def _threshold(
  gallery: AnyGallery, far: float | None, calibrated_on: str | None
) -> tuple[OperatingPoint | None, str, list[str]]:
  """Returns the threshold, whom it was calibrated on, and what to say where there is none."""
  try:
    thresholds = gallery.thresholds_on(calibrated_on)
    return thresholds.at(DEFAULT_FAR if far is None else far), thresholds.calibrated_on, []
  except ThresholdError as error:
    if far is not None or calibrated_on is not None:
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
