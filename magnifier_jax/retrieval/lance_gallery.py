"""A gallery in LanceDB: a table on object storage, or in a folder, that many machines may use.

The rows are those of a local gallery with their vectors beside them; the model is in the schema's
metadata. Search is LanceDB's own, exact as long as nobody makes an index of the table.
"""

import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from magnifier_jax.files.user_path import user_path
from magnifier_jax.retrieval.embedded import EmbeddedImages, branch_distances
from magnifier_jax.retrieval.embedder import Embedder
from magnifier_jax.retrieval.gallery_files import SCHEMA, GalleryError
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
from magnifier_jax.retrieval.network import EmbeddingNetwork

LOCAL = "lance://"
_TABLE = "magnifier_jax_gallery"
_MODEL = b"magnifier_jax"  # key of the schema's metadata
_VECTOR = "vector"


class LanceGallery(GalleryModel):
  """A table of embedded images.

  An append appears at once and whole. Several processes may add and search; what others add is seen
  by opening the table again. `create` and `open` make one.
  """

  def __init__(self, address: str, table: Any):
    self._table = table
    try:
      model = json.loads((table.schema.metadata or {})[_MODEL])
    except (KeyError, ValueError) as error:
      raise GalleryError(f"{address}: its table is not a gallery of this program") from error
    super().__init__(model, address, address)

  @classmethod
  def create(
    cls, address: str, network: Embedder | EmbeddingNetwork, source: str = ""
  ) -> "LanceGallery":
    """Makes an empty gallery.

    Args:
      address: lance://PATH, or s3://BUCKET/PATH and others of LanceDB's, with credentials in the
        environment.
      network: whose vectors it is to hold.
      source: path of that network, for `tools.search` to open it.

    Raises:
      GalleryError: when there is one already, or LanceDB is not installed or fails.
    """
    model = model_of(network, source)
    vector = pa.field(_VECTOR, pa.list_(pa.float32(), sum(model["branches"].values())))
    schema = SCHEMA.append(vector).with_metadata({_MODEL: json.dumps(model)})
    if exists(address):
      raise GalleryError(f"{address}: a gallery is there already; LanceGallery.open opens it")
    with _one_line(address):
      return cls(
        address,
        _import_lancedb(address).connect(_place(address)).create_table(_TABLE, schema=schema),
      )

  @classmethod
  def open(cls, address: str) -> "LanceGallery":
    """Opens a gallery.

    Raises:
      GalleryError: when there is none, or LanceDB is not installed or fails.
    """
    table = _open_table(address)
    if table is None:
      raise GalleryError(f"{address}: no gallery there; tools.embed makes one")
    return cls(address, table)

  def __len__(self) -> int:
    """Returns the number of rows."""
    with _one_line(self.name):
      return self._table.count_rows()

  def add(
    self,
    embedded: EmbeddedImages,
    *,
    person: OneOrEach[Name] = None,
    camera: OneOrEach[Name] = None,
    time: OneOrEach[Time] = None,
    track: OneOrEach[Name] = None,
  ) -> None:
    """Appends embedded images, all or none; the arguments are those of `Gallery.add`.

    Raises:
      GalleryError: when the vectors are of another network or damaged, values do not fit, or
        LanceDB fails.
    """
    self.check_added(embedded)
    rows = rows_table(embedded, person, camera, time, track)
    numbers = pa.array(embedded.whole.astype(np.float32).ravel())
    vectors = pa.FixedSizeListArray.from_arrays(numbers, self.width)
    if len(embedded):
      with _one_line(self.name):
        self._table.add(rows.append_column(_VECTOR, vectors))

  def search(
    self,
    query: EmbeddedImages | np.ndarray,
    k: int = 10,
    *,
    exclude_camera: Name | Sequence[Name] | None = None,
    time: tuple[Time, Time] | None = None,
  ) -> list[list[Match]]:
    """Finds the nearest rows; arguments and results are those of `Gallery.search`.

    Raises:
      GalleryError: when nothing is left to search, the query does not fit, or LanceDB fails.
    """
    vectors = self.query_vectors(query, k)
    self.count(exclude_camera, time)
    kept = _condition(exclude_camera, time)
    matches = []
    for vector in vectors:
      with _one_line(self.name):
        search = self._table.search(vector, vector_column_name=_VECTOR).distance_type("l2")
        if kept:
          search = search.where(kept, prefilter=True)
        found = search.with_row_id(True).limit(k).to_arrow()
      matches.append(self._matches(vector, found))
    return matches

  def count(
    self,
    exclude_camera: Name | Sequence[Name] | None = None,
    time: tuple[Time, Time] | None = None,
  ) -> int:
    """Returns how many rows filters leave; see `search`.

    Raises:
      GalleryError: when they leave none.
    """
    with _one_line(self.name):
      count = self._table.count_rows(_condition(exclude_camera, time) or None)
    if not count:
      raise self.nothing_to_search(len(self))
    return count

  def delete(self, **known: Name | Sequence[Name]) -> int:
    """Deletes rows.

    Args:
      **known: what they have: path=, sha256=, person=, camera= or track=, one value or several;
        rows that have all of it are deleted.

    Returns:
      How many there were.

    Raises:
      GalleryError: when nothing is said of the rows, or LanceDB fails.
    """
    columns = [name for name in SCHEMA.names if name != "time"]
    unknown = [name for name in known if name not in columns]
    if unknown or not known:
      raise GalleryError(f"delete: say which rows, by {', '.join(columns)}; got {unknown}")
    wanted = " AND ".join(f"{name} IN ({_listed(value)})" for name, value in known.items())
    with _one_line(self.name):
      before = self._table.count_rows()
      self._table.delete(wanted)
      return before - self._table.count_rows()

  def column(self, name: str) -> np.ndarray:
    """Returns what is known of all rows; see `Gallery.column`."""
    with _one_line(self.name):
      values = self._table.search().select([name]).to_arrow()[name]
    return values.fill_null(np.nan if name == "time" else "").to_numpy()

  def _matches(self, query: np.ndarray, found: pa.Table) -> list[Match]:
    theirs = found[_VECTOR].combine_chunks().flatten().to_numpy().reshape(-1, self.width)
    by_branch = branch_distances(query, theirs, self.branches)
    about = known_of(found.select(SCHEMA.names), np.arange(len(found)))
    rows, distances = found["_rowid"].to_pylist(), found["_distance"].to_pylist()
    order = sorted(range(len(found)), key=lambda i: (distances[i], rows[i]))
    return [
      Match(
        **about[i] | {"row": rows[i]},
        distance=distances[i],
        branch_distances={name: float(values[i]) for name, values in by_branch.items()},
      )
      for i in order
    ]


def exists(address: str) -> bool:
  """Whether a gallery is at an address.

  Raises:
    GalleryError: when LanceDB is not installed or fails.
  """
  return _open_table(address) is not None


def _open_table(address: str) -> Any:
  """Returns the table of an address; None where there is none."""
  lancedb = _import_lancedb(address)
  if address.startswith(LOCAL) and not Path(_place(address)).exists():
    return None  # LanceDB would make the folder
  with _one_line(address):
    try:
      return lancedb.connect(_place(address)).open_table(_TABLE)
    except ValueError as error:
      if "not found" in str(error):
        return None
      raise


def _import_lancedb(address: str) -> ModuleType:
  try:
    return importlib.import_module("lancedb")
  except ImportError as error:
    raise GalleryError(
      f"{address}: LanceDB is not installed; pip install 'magnifier-jax[lance]', or pip install "
      "lancedb"
    ) from error


def _place(address: str) -> str:
  """Returns what LanceDB calls an address."""
  if not address.startswith(LOCAL):
    return address
  return str(user_path(address.removeprefix(LOCAL)).absolute())


def _condition(exclude_camera: Name | Sequence[Name] | None, time: tuple[Time, Time] | None) -> str:
  """Returns filters in SQL; '' for none. Rows of no known camera are kept, of no known time not."""
  conditions = []
  if exclude_camera is not None and (cameras := _listed(exclude_camera)):
    conditions.append(f"(camera IS NULL OR camera NOT IN ({cameras}))")
  if time is not None:
    start, end = map(seconds, time)
    conditions.append(f"(time >= {start!r} AND time <= {end!r})")
  return " AND ".join(conditions)


def _listed(values: Name | Sequence[Name]) -> str:
  """Returns names as a list in SQL."""
  return ", ".join("'" + name.replace("'", "''") + "'" for name in several_names(values))


@contextmanager
def _one_line(address: str) -> Iterator[None]:
  """Makes one line of whatever LanceDB raises; its errors have no base of their own."""
  try:
    yield
  except GalleryError:
    raise
  except Exception as error:
    reason = str(error).partition("\n")[0] or type(error).__name__
    raise GalleryError(f"{address}: LanceDB: {reason}") from error
