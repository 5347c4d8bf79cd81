"""Approximate search with FAISS: an index finds candidates, the vectors themselves rank them.

The index lies in a gallery's folder, beside the shards, and says which rows it is of:

index/ivf.json            which file counts, its rows, a digest of some of them, recall
index/ivf-RRRRRRR.faiss   principal components, then an inverted file of compressed vectors

So distances are exact, and what is approximate is which rows are looked at. How often they are the
right ones is measured on the gallery's own rows whenever the index is built.
"""

import hashlib
import importlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from magnifier_jax.errors import UserError
from magnifier_jax.files import file_lock
from magnifier_jax.files.whole_file import make_folder, replacing, write_json, writing
from magnifier_jax.retrieval.nearest import NearestRows, merged, nearest_rows, vectors_of

_FOLDER, _RECORD, _LOCK = "index", "ivf.json", "lock"
_FORMAT = 1
_MIN_ROWS = 1000
_GROWTH = 1 / 10  # share of rows that may be added before the index is built anew
_COMPONENTS = 256  # that vectors are projected onto; k-means in 4,096 dimensions takes 16 × as long
_LISTS_BY_ROOT = 4  # inverted lists: 4 √N, as FAISS advises
_TRAINING_ROWS = 64  # of each list
_COMPONENT_TRAINING_BYTES = 2**27
_ITERATIONS = 4
_CHUNK_ROWS = 2**14
# Product quantisation to a byte for four components, where one for each wants more of the memory.
_MEMORY_SHARE = 1 / 4
_COMPONENTS_BY_CODE = 4
_CANDIDATES = 16  # for each match that is asked for, to be ranked by their exact distances
_MIN_CANDIDATES = 160
_FEW = 1 / 20  # share of rows that a filter keeps, below which exact search is as quick
_SAMPLE = 128  # rows to choose the number of lists by, and as many others to measure it on
_WANTED_RECALL = 0.95
_DIGEST_ROWS = 256


class IndexingError(UserError):
  """A gallery cannot have an index."""


class _Record(NamedTuple):
  """What `ivf.json` says."""

  format: int
  file: str
  rows: int  # that are in the index: the first ones of the gallery
  digest: str  # of some of their vectors
  lists: int
  probed: int  # lists that a search looks into
  code: str  # FAISS's name of the compression
  recall_at_10: float
  recall_queries: int


class ApproximateIndex:
  """An index of a gallery's first rows; those that were added since are searched exactly.

  `open_index` makes one.

  Attributes:
    rows: that are in it.
    recall_at_10: share of the ten nearest rows that it finds, measured on rows of the gallery.
  """

  def __init__(self, index: Any, record: _Record):
    self._index = index
    self._record = record
    self.rows = record.rows
    self.recall_at_10 = record.recall_at_10

  @property
  def description(self) -> str:
    """What must be known about its results, a sentence."""
    record = self._record
    return (
      f"Approximate search, in {record.probed:,} of {record.lists:,} lists ({record.code}): of "
      f"the ten nearest images of {record.recall_queries:,} of the gallery's own it finds "
      f"{100 * record.recall_at_10:.1f} %."
    )

  def search(
    self, shards: Sequence[np.ndarray], queries: np.ndarray, k: int, keep: np.ndarray | None = None
  ) -> NearestRows:
    """Searches a gallery.

    Args:
      shards: [rows, D] float32 each, L2-normalised; together the gallery, in order.
      queries: [Q, D] float32, L2-normalised.
      k: at least 1.
      keep: [rows of all shards] bool, which of them are searched; None for all.

    Returns:
      Rows of the gallery, with their exact distances.
    """
    total = sum(map(len, shards))
    keep = np.ones(total, bool) if keep is None else keep
    indexed = keep[: self.rows]
    k = min(k, int(keep.sum()))
    if indexed.sum() < _FEW * self.rows:
      return nearest_rows(shards, queries, k, keep)
    # What a filter leaves of the nearest lies further away, in more lists of fewer rows.
    probed = math.ceil(self._record.probed * self.rows / indexed.sum())
    probed = min(probed, self._record.lists)
    found = _candidates(self._index, probed, shards, queries, k, indexed)
    short = np.flatnonzero((found.row < 0).sum(axis=1) > max(0, k - indexed.sum()))
    if len(short):  # the lists of these queries have too few rows that the filter keeps
      exact = nearest_rows(shards, queries[short], k, keep & (np.arange(total) < self.rows))
      found.row[short], found.distance[short] = exact
    if total > self.rows:
      added = nearest_rows(shards, queries, k, keep & (np.arange(total) >= self.rows))
      found = merged(found, added)
    return found


def open_index(
  folder: Path, shards: Sequence[np.ndarray], on_progress: Callable[[str], None]
) -> ApproximateIndex:
  """Opens the index of a gallery, or builds it.

  Args:
    folder: of the gallery.
    shards: [rows, D] float32 each, L2-normalised.
    on_progress: is told what takes time.

  Raises:
    IndexingError: when FAISS is not installed, or there are too few rows.
    WriteError: when the index cannot be written.
  """
  faiss = _import_faiss()
  rows = sum(map(len, shards))
  if rows < _MIN_ROWS:
    raise IndexingError(
      f"{folder}: an index wants {_MIN_ROWS:,} images, and there are {rows:,}; exact search is "
      "quicker there"
    )
  place = folder / _FOLDER
  index, _ = _opened(faiss, place, shards)
  if index is not None:
    return index
  make_folder(place)
  with writing(place / _LOCK):
    (place / _LOCK).touch()
    lock = file_lock.acquire(place / _LOCK, shared=False, wait=True)
  try:
    index, reason = _opened(faiss, place, shards)  # somebody else may have built it meanwhile
    if index is not None:
      return index
    why = f"the index {reason}; " if reason else ""
    on_progress(f"{why}building one of {rows:,} images")
    return _built(faiss, place, shards, on_progress)
  finally:
    lock.release()


def _opened(
  faiss: ModuleType, place: Path, shards: Sequence[np.ndarray]
) -> tuple[ApproximateIndex | None, str]:
  """Returns the index; or None and why it cannot be used, '' where there is none."""
  record, reason = _usable(place, shards)
  if record is None:
    return None, reason
  try:
    return ApproximateIndex(faiss.read_index(str(place / record.file)), record), ""
  except RuntimeError:  # whatever is wrong with the file
    return None, "is damaged"


def _import_faiss() -> ModuleType:
  try:
    return importlib.import_module("faiss")
  except ImportError as error:
    raise IndexingError(
      "FAISS is not installed; pip install 'magnifier-jax[search]', or pip install faiss-cpu"
    ) from error


def _usable(place: Path, shards: Sequence[np.ndarray]) -> tuple[_Record | None, str]:
  """Returns what the index says of itself; or None and why it cannot be used, '' without one."""
  try:
    record = _Record(**json.loads((place / _RECORD).read_text(encoding="utf-8")))
    rows = sum(map(len, shards))
    if record.format != _FORMAT:
      return None, "is of another version of this program"
    if record.rows > rows or record.digest != _digest(shards, record.rows):
      return None, "is of other images"
    if rows - record.rows > _GROWTH * record.rows:
      return None, f"is of {record.rows:,} images"
    return record, ""
  except FileNotFoundError:
    return None, ""
  except (OSError, ValueError, TypeError):
    return None, "is damaged"


def _digest(shards: Sequence[np.ndarray], rows: int) -> str:
  """Returns the SHA-256 of some of the first rows, evenly spread."""
  some = np.unique(np.linspace(0, rows - 1, _DIGEST_ROWS).astype(np.int64))
  return hashlib.sha256(vectors_of(shards, some).tobytes()).hexdigest()


def _built(
  faiss: ModuleType,
  place: Path,
  shards: Sequence[np.ndarray],
  on_progress: Callable[[str], None],
) -> ApproximateIndex:
  """Builds an index of all rows, and writes it."""
  rows = sum(map(len, shards))
  random = np.random.default_rng(0)
  reduce = _principal_components(faiss, shards, random)
  lists = int(np.clip(_LISTS_BY_ROOT * math.sqrt(rows), 1, rows // _TRAINING_ROWS))
  code = _code(rows, reduce.d_out)
  inverted = faiss.index_factory(reduce.d_out, f"IVF{lists},{code}")
  if code.startswith("PQ"):
    inverted.do_polysemous_training = (
      False  # nearly all of the training, for a use that is not ours
    )
  training = np.sort(random.choice(rows, min(rows, lists * _TRAINING_ROWS), replace=False))
  chunks = np.split(training, range(_CHUNK_ROWS, len(training), _CHUNK_ROWS))
  on_progress(f"  learning {lists:,} lists from {len(training):,} images")
  inverted.train(np.concatenate([reduce.apply_py(vectors_of(shards, some)) for some in chunks]))
  index = faiss.IndexPreTransform(reduce, inverted)
  for chunk in _chunks(shards):
    index.add(chunk)
  on_progress(f"  measuring what it finds, on {2 * _SAMPLE} of the images")
  probed, recall, queries = _measured(index, lists, shards, random)
  file = place / f"ivf-{rows:07}.faiss"
  with replacing(file) as unfinished:
    faiss.write_index(index, str(unfinished))
  digest = _digest(shards, rows)
  record = _Record(_FORMAT, file.name, rows, digest, lists, probed, code, recall, queries)
  write_json(place / _RECORD, record._asdict())
  for other in place.glob("*.faiss"):
    if other != file:
      other.unlink(missing_ok=True)
  return ApproximateIndex(index, record)


def _principal_components(
  faiss: ModuleType, shards: Sequence[np.ndarray], random: np.random.Generator
) -> Any:
  """Returns a projection onto the components that matter most, in a random basis of them.

  By subspace iteration: FAISS's own computes all 4,096 eigenvectors, which took minutes.
  """
  width = shards[0].shape[1]
  rows = sum(map(len, shards))
  count = min(rows, max(_MIN_ROWS, _COMPONENT_TRAINING_BYTES // (4 * width)))
  sample = vectors_of(shards, np.sort(random.choice(rows, count, replace=False)))
  mean = sample.mean(axis=0)
  sample -= mean
  components = min(_COMPONENTS, width) // _COMPONENTS_BY_CODE * _COMPONENTS_BY_CODE
  basis = random.standard_normal((width, components), np.float32)
  for _ in range(_ITERATIONS):
    basis = np.linalg.qr(sample.T @ (sample @ basis))[0]
  rotation = np.linalg.qr(random.standard_normal((components, components), np.float32))[0]
  matrix = (basis @ rotation).T
  reduce = faiss.LinearTransform(width, components, True)
  faiss.copy_array_to_vector(np.ascontiguousarray(matrix).ravel(), reduce.A)
  faiss.copy_array_to_vector(-matrix @ mean, reduce.b)
  reduce.is_trained = True
  return reduce


def _code(rows: int, components: int) -> str:
  """Returns how vectors are compressed, as FAISS calls it."""
  memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  if rows * components <= _MEMORY_SHARE * memory:
    return "SQ8"
  return f"PQ{components // _COMPONENTS_BY_CODE}"


def _chunks(shards: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
  for shard in shards:
    for start in range(0, len(shard), _CHUNK_ROWS):
      yield np.ascontiguousarray(shard[start : start + _CHUNK_ROWS])


def _measured(
  index: Any, lists: int, shards: Sequence[np.ndarray], random: np.random.Generator
) -> tuple[int, float, int]:
  """Returns how many lists to look into, the recall at 10 with them, and on how many rows.

  The lists are doubled until half of the sample is found well enough; recall is the other half's.
  """
  rows = sum(map(len, shards))
  sample = random.choice(rows, 2 * _SAMPLE, replace=False)
  queries = vectors_of(shards, sample)
  truth = _without_itself(nearest_rows(shards, queries, 11), sample)
  everything = np.ones(rows, bool)

  def recall(probed: int, half: slice) -> float:
    found = _candidates(index, probed, shards, queries[half], 11, everything)
    # Rows as near as the tenth are right: copies of an image are interchangeable.
    limit = truth.distance[half, 9:] + 1e-6
    return float((_without_itself(found, sample[half]).distance <= limit).mean())

  choosing, measuring = slice(None, _SAMPLE), slice(_SAMPLE, None)
  probed = 1
  while probed < lists and recall(probed, choosing) < _WANTED_RECALL:
    probed = min(2 * probed, lists)
  return probed, recall(probed, measuring), _SAMPLE


def _without_itself(found: NearestRows, rows: np.ndarray) -> NearestRows:
  """Returns the first ten of eleven rows that are not the query's own."""
  order = np.argsort(found.row == rows[:, None], axis=1, kind="stable")[:, :10]
  return NearestRows(*(np.take_along_axis(side, order, axis=1) for side in found))


def _candidates(
  index: Any,
  probed: int,
  shards: Sequence[np.ndarray],
  queries: np.ndarray,
  k: int,
  keep: np.ndarray,
) -> NearestRows:
  """Returns the nearest of the candidates that an index finds, by their exact distances.

  Args:
    index: of the first rows.
    probed: lists to look into.
    shards: of the gallery.
    queries: [Q, D] float32.
    k: how many; row −1 and an infinite distance where there are fewer.
    keep: [rows of the index] bool, which of them are searched.
  """
  import faiss

  selected = {} if keep.all() else {"sel": faiss.IDSelectorBitmap(_bits(keep))}
  inverted = faiss.SearchParametersIVF(nprobe=probed, **selected)
  parameters = faiss.SearchParametersPreTransform(index_params=inverted)
  count = min(max(_CANDIDATES * k, _MIN_CANDIDATES), len(keep))
  _, candidates = index.search(np.ascontiguousarray(queries), count, params=parameters)
  best = NearestRows(np.full((len(queries), k), -1), np.full((len(queries), k), np.inf, np.float32))
  for i, row in enumerate(candidates):
    row = np.sort(row[row >= 0])  # ties by row
    distance = np.clip(2 - 2 * (vectors_of(shards, row) @ queries[i]), 0, 4)
    order = np.argsort(distance, kind="stable")[:k]
    best.row[i, : len(order)], best.distance[i, : len(order)] = row[order], distance[order]
  return best


def _bits(keep: np.ndarray) -> np.ndarray:
  return np.packbits(keep, bitorder="little")
