"""A gallery on disk: vectors of one network, whose they are, and exact search among them."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from magnifier_jax.files.user_path import user_path
from magnifier_jax.retrieval import gallery_files
from magnifier_jax.retrieval.approximate import ApproximateIndex, open_index
from magnifier_jax.retrieval.embedded import EmbeddedImages, branch_distances
from magnifier_jax.retrieval.embedder import Embedder
from magnifier_jax.retrieval.gallery_files import GalleryError
from magnifier_jax.retrieval.gallery_model import GalleryModel, model_of
from magnifier_jax.retrieval.gallery_rows import (
  Match,
  Name,
  OneOrEach,
  Time,
  known_of,
  rows_table,
  seconds,
  several_names,
)
from magnifier_jax.retrieval.nearest import NearestRows, nearest_rows, vectors_of
from magnifier_jax.retrieval.network import EmbeddingNetwork
from magnifier_jax.retrieval.tracklets import Tracklets, pool


class _Content(NamedTuple):
  """What was committed at one time."""

  table: pa.Table
  shards: list[np.ndarray]


class Gallery(GalleryModel):
  """A folder of embedded images.

  What `add` returned from is on the disk; what it was doing when the process was killed is not
  there. Several processes may add to a gallery and search it.

  `create` and `open` make one.

  Attributes:
    folder: of its files.
  """

  def __init__(self, folder: Path):
    """Opens a gallery; see `open`."""
    self.folder = folder
    model = gallery_files.read_model(folder)
    super().__init__(model, str(folder), str(folder / gallery_files.MODEL))
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
    path = user_path(os.fspath(folder))
    if (path / gallery_files.MANIFEST).exists():
      raise GalleryError(f"{path}: a gallery is there already; Gallery.open opens it")
    gallery_files.create(path, model_of(network, source))
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
    self.check_added(embedded)
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
    index: ApproximateIndex | None = None,
  ) -> list[list[Match]]:
    """Finds the nearest rows; exactly, but with an index.

    Args:
      query: embedded images, or vectors [Q, D] float32, L2-normalised.
      k: matches of each query, at most.
      exclude_camera: cameras whose rows are left out; those of no known camera are searched.
      time: only rows from the first to the second, both included.
      pool_tracks: whether the images of a track are searched as one, by their mean.
      index: what `index` returned, to look at a part of the rows only; not with `pool_tracks`.

    Returns:
      The matches of each query, nearest first, ties by row.

    Raises:
      GalleryError: when nothing is left to search, or the query does not fit.
    """
    vectors = self.query_vectors(query, k)
    keep = self.keep(exclude_camera, time)
    if index is not None and pool_tracks:
      raise GalleryError("index: tracks that are pooled are searched exactly; leave one out")
    if index is not None:
      return self.matches(vectors, index.search(self.shards, vectors, k, keep))
    if pool_tracks:
      tracklets = self.pooled(keep)
      found = nearest_rows([tracklets.vectors], vectors, min(k, len(tracklets.size)))
      return self.matches(vectors, found, tracklets)
    found = nearest_rows(self.shards, vectors, min(k, int(keep.sum())), keep)
    return self.matches(vectors, found)

  def index(self, on_progress: Callable[[str], None] = lambda line: None) -> ApproximateIndex:
    """Opens the index for approximate search that lies beside the vectors.

    It is built where there is none, where it is of other vectors, and where the gallery has grown
    by more than a tenth.

    Args:
      on_progress: is told what takes time, in lines for people.

    Raises:
      IndexingError: when FAISS is not installed, or the gallery is too small.
      WriteError: when it cannot be written.
    """
    return open_index(self.folder, self.shards, on_progress)

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
      cameras = pa.array(several_names(exclude_camera), pa.string())
      excluded = pc.is_in(self.table["camera"], value_set=cameras)
      keep &= ~excluded.to_numpy(zero_copy_only=False)
    if time is not None:
      start, end = map(seconds, time)
      times = self.column("time")
      keep &= (times >= start) & (times <= end)
    if not keep.any():
      raise self.nothing_to_search(len(self))
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
    if not self.shards:
      return np.empty((0, self.width), np.float32)
    return vectors_of(self.shards, rows)

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

  def _track_numbers(self) -> np.ndarray:
    """Returns a number for each track of each camera, [N] int64; −1 where there is none."""
    track, camera = self.column("track"), self.column("camera")
    names = np.char.add(np.char.add(camera.astype(str), "\0"), track.astype(str))
    _, number = np.unique(names, return_inverse=True)
    return np.where(track == "", -1, number)
