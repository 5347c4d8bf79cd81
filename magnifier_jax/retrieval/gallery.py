"""A gallery on disk: vectors of one network, whose they are, and exact search among them."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from magnifier_jax.evaluation.thresholds import Thresholds
from magnifier_jax.files.user_path import user_path
from magnifier_jax.retrieval import gallery_files
from magnifier_jax.retrieval.embedded import EmbeddedImages, branch_distances
from magnifier_jax.retrieval.embedder import Embedder, thresholds_of
from magnifier_jax.retrieval.gallery_files import GalleryError
from magnifier_jax.retrieval.gallery_rows import (
  Match,
  Name,
  OneOrEach,
  Time,
  known_of,
  names,
  rows_table,
  seconds,
)
from magnifier_jax.retrieval.nearest import NearestRows, nearest_rows
from magnifier_jax.retrieval.network import EmbeddingNetwork, name_of
from magnifier_jax.retrieval.tracklets import Tracklets, pool

_NORM_TOLERANCE = 1e-3


class _Content(NamedTuple):
  """What was committed at one time."""

  table: pa.Table
  shards: list[np.ndarray]


class Gallery:
  """A folder of embedded images.

  What `add` returned from is on the disk; what it was doing when the process was killed is not
  there. Several processes may add to a gallery and search it.

  `create` and `open` make one.

  Attributes:
    folder: of its files.
    branches: {branch: width}, of the vectors.
    weights_sha256: of the network that made them.
    network: description of that network.
    network_source: path that it was opened from; '' where it is not known.
  """

  def __init__(self, folder: Path):
    """Opens a gallery; see `open`."""
    self.folder = folder
    model = gallery_files.read_model(folder)
    try:
      self.branches = {str(name): int(width) for name, width in model["branches"].items()}
      self.weights_sha256 = str(model["weights_sha256"])
      self.network = str(model["network"])
      self.network_source = str(model["network_source"])
      self._thresholds = model["thresholds"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise GalleryError(
        f"{folder / gallery_files.MODEL}: damaged; embed the images anew"
      ) from error
    self._content: _Content | None = self._read()

  @classmethod
  def create(
    cls, folder: str | os.PathLike[str], network: Embedder | EmbeddingNetwork, source: str = ""
  ) -> "Gallery":
    """Makes an empty gallery.

    Args:
      folder: new, or empty.
      network: whose vectors it is to hold.
      source: path of that network, for `tools.search` to open it.

    Raises:
      GalleryError: when something is there already.
      WriteError: when it cannot be written.
    """
    network = network.network if isinstance(network, Embedder) else network
    path = user_path(os.fspath(folder))
    if (path / gallery_files.MANIFEST).exists():
      raise GalleryError(f"{path}: a gallery is there already; Gallery.open opens it")
    model = {
      "network": name_of(network),
      "network_source": source,
      "weights_sha256": network.weights_sha256,
      "image_size_hw": list(network.image_size_hw),
      "branches": dict(network.branches),
      "thresholds": network.thresholds,
    }
    gallery_files.create(path, model)
    return cls(path)

  @classmethod
  def open(cls, folder: str | os.PathLike[str]) -> "Gallery":
    """Opens a gallery; what others add afterwards is seen by opening it again.

    Raises:
      GalleryError: when there is none, or it is damaged.
    """
    return cls(user_path(os.fspath(folder)))

  def __len__(self) -> int:
    """Returns the number of rows."""
    return len(self.table)

  @property
  def table(self) -> pa.Table:
    """The rows, as they were when the gallery was opened or last added to."""
    if self._content is None:
      self._content = self._read()
    return self._content.table

  @property
  def shards(self) -> list[np.ndarray]:
    """The vectors of the rows, [rows, D] float32 each, read from the disk as they are needed."""
    if self._content is None:
      self._content = self._read()
    return self._content.shards

  @property
  def width(self) -> int:
    """D, of the vectors."""
    return sum(self.branches.values())

  @property
  def thresholds(self) -> Thresholds:
    """The thresholds of its network.

    Raises:
      ThresholdError: when it has none.
    """
    return thresholds_of(self._thresholds, self.network)

  def check_network(self, weights_sha256: str, branches: Mapping[str, int], whose: str) -> None:
    """Checks that vectors are of the gallery's network.

    Args:
      weights_sha256: of the network that made them.
      branches: {branch: width}, of the vectors.
      whose: for the message.

    Raises:
      GalleryError: when they are of another network, or of other branches of the same: distances
        would mean nothing.
    """
    if weights_sha256 != self.weights_sha256:
      raise GalleryError(
        f"{self.folder}: its vectors are of another network ({self.network}, weights "
        f"{self.weights_sha256[:12]}…) than {whose} (weights {weights_sha256[:12]}…); embed both "
        "with the same one"
      )
    if list(branches.items()) != list(self.branches.items()):
      raise GalleryError(
        f"{self.folder}: its vectors are of the branches {', '.join(self.branches)}, {whose} of "
        f"{', '.join(branches)}; embed both with the same"
      )

  def add(
    self,
    embedded: EmbeddedImages,
    *,
    person: OneOrEach[Name] = None,
    camera: OneOrEach[Name] = None,
    time: OneOrEach[Time] = None,
    track: OneOrEach[Name] = None,
  ) -> None:
    """Appends embedded images, all or none.

    Args:
      embedded: of the gallery's network.
      person: who is on the images: one value for all of them, or one for each image that was given
        to `embed`, the failed ones included; None where it is not known. Names are text: 2 and '2'
        are the same.
      camera: likewise.
      time: likewise; seconds since 1970, a datetime, or any other numbers that rise with time.
      track: likewise; the number of a tracker, unique within the camera.

    Raises:
      GalleryError: when the vectors are of another network or damaged, or values do not fit.
      WriteError: when it cannot be written; nothing was added.
    """
    self.check_network(embedded.weights_sha256, embedded.branch_widths, "the images to add")
    _check_vectors(embedded.whole, self.width)
    rows = rows_table(embedded, person, camera, time, track)
    if len(embedded):
      gallery_files.append(self.folder, embedded.whole, rows)
      self._content = None  # is read when it is asked for: others may have added too

  def search(
    self,
    query: EmbeddedImages | np.ndarray,
    k: int = 10,
    *,
    exclude_camera: Name | Sequence[Name] | None = None,
    time: tuple[Time, Time] | None = None,
    pool_tracks: bool = False,
  ) -> list[list[Match]]:
    """Finds the nearest rows, exactly.

    Args:
      query: embedded images, or vectors [Q, D] float32, L2-normalised.
      k: matches of each query, at most.
      exclude_camera: cameras whose rows are left out; those of no known camera are searched.
      time: only rows from the first to the second, both included.
      pool_tracks: whether the images of a track are searched as one, by their mean.

    Returns:
      The matches of each query, nearest first, ties by row.

    Raises:
      GalleryError: when nothing is left to search, or the query does not fit.
    """
    vectors = self._query_vectors(query)
    if k < 1:
      raise GalleryError(f"k: must be at least 1, got {k}")
    keep = self.keep(exclude_camera, time)
    if pool_tracks:
      tracklets = self.pooled(keep)
      found = nearest_rows([tracklets.vectors], vectors, min(k, len(tracklets.size)))
      return self.matches(vectors, found, tracklets)
    found = nearest_rows(self.shards, vectors, min(k, int(keep.sum())), keep)
    return self.matches(vectors, found)

  def keep(
    self,
    exclude_camera: Name | Sequence[Name] | None = None,
    time: tuple[Time, Time] | None = None,
  ) -> np.ndarray:
    """Returns which rows filters leave, [N] bool; see `search`.

    Raises:
      GalleryError: when they leave none.
    """
    keep = np.ones(len(self), bool)
    if exclude_camera is not None:
      is_one = isinstance(exclude_camera, str | int | np.integer)
      cameras = names([exclude_camera] if is_one else exclude_camera)
      excluded = pc.is_in(self.table["camera"], value_set=pa.array(cameras, pa.string()))
      keep &= ~excluded.to_numpy(zero_copy_only=False)
    if time is not None:
      start, end = map(seconds, time)
      times = self.column("time")
      keep &= (times >= start) & (times <= end)
    if not keep.any():
      why = "it is empty" if len(self) == 0 else f"the filters leave none of its {len(self)} rows"
      raise GalleryError(f"{self.folder}: nothing to search, {why}")
    return keep

  def pooled(self, keep: np.ndarray) -> Tracklets:
    """Returns the tracks among some rows, each as one vector; `keep`: [N] bool."""
    return pool(self.shards, self._track_numbers(), keep)

  def matches(
    self, queries: np.ndarray, found: NearestRows, tracklets: Tracklets | None = None
  ) -> list[list[Match]]:
    """Returns what is known of the rows that were found for each query.

    Args:
      queries: [Q, D] float32.
      found: rows of the gallery; with `tracklets`, rows of those.
      tracklets: that were searched in place of the gallery.
    """
    is_found = found.row >= 0
    rows = found.row if tracklets is None else tracklets.medoid[found.row]
    known = iter(known_of(self.table, rows[is_found]))  # at once: a lookup costs more than a row
    matches = []
    for i, vector in enumerate(queries):
      own, distances = found.row[i][is_found[i]], found.distance[i][is_found[i]]
      theirs = self.vectors(own) if tracklets is None else tracklets.vectors[own]
      sizes = np.ones(len(own), int) if tracklets is None else tracklets.size[own]
      by_branch = branch_distances(vector, theirs, self.branches)
      matches.append(
        [
          Match(
            **about,
            distance=float(distances[j]),
            branch_distances={name: float(values[j]) for name, values in by_branch.items()},
            images=int(sizes[j]),
          )
          for j, about in zip(range(len(own)), known)
        ]
      )
    return matches

  def vectors(self, rows: np.ndarray) -> np.ndarray:
    """Returns the vectors of some rows, [rows, D] float32."""
    vectors = np.empty((len(rows), self.width), np.float32)
    first = 0
    for shard in self.shards:
      here = (rows >= first) & (rows < first + len(shard))
      vectors[here] = shard[rows[here] - first]
      first += len(shard)
    return vectors

  def column(self, name: str) -> np.ndarray:
    """Returns what is known of all rows: an array of text, '' where it is not; times are numbers.

    Args:
      name: 'path', 'sha256', 'person', 'camera', 'time' or 'track'.
    """
    values = self.table[name]
    if name == "time":
      return values.fill_null(math.nan).to_numpy()
    return values.fill_null("").to_numpy()

  def _read(self) -> "_Content":
    shards, table = gallery_files.read_tables(self.folder)
    return _Content(
      table, [gallery_files.map_vectors(self.folder, shard, self.width) for shard in shards]
    )

  def _query_vectors(self, query: EmbeddedImages | np.ndarray) -> np.ndarray:
    if isinstance(query, EmbeddedImages):
      self.check_network(query.weights_sha256, query.branch_widths, "the query")
      query = query.whole
    vectors = np.asarray(query, np.float32)
    _check_vectors(vectors, self.width)
    return vectors

  def _track_numbers(self) -> np.ndarray:
    """Returns a number for each track of each camera, [N] int64; −1 where there is none."""
    track, camera = self.column("track"), self.column("camera")
    names = np.char.add(np.char.add(camera.astype(str), "\0"), track.astype(str))
    _, number = np.unique(names, return_inverse=True)
    return np.where(track == "", -1, number)


def _check_vectors(vectors: np.ndarray, width: int) -> None:
  if vectors.ndim != 2 or vectors.shape[1] != width:
    raise GalleryError(f"vectors: [N, {width}] is wanted, got shape {vectors.shape}")
  lengths = np.linalg.norm(vectors, axis=1)
  wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _NORM_TOLERANCE))  # NaN among them
  if len(wrong):
    raise GalleryError(
      f"vectors: rows must be finite and L2-normalised, but row {wrong[0]} has norm "
      f"{lengths[wrong[0]]:.4g}"
    )
