"""A gallery's files: what is appended appears at once and whole, whenever the process is killed.

model.json               whose vectors these are
manifest.json            which files count, and how many rows of each: replacing it is the commit
vectors/000000.npy       vectors, appended in place; rows beyond the manifest's do not count
rows/000000-0000123.parquet   the rows of that file, written anew with each append
"""

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from magnifier_jax.errors import UserError
from magnifier_jax.files import file_lock
from magnifier_jax.files.whole_file import make_folder, replacing, write_json, writing

MODEL, MANIFEST = "model.json", "manifest.json"
_VECTORS, _ROWS, _LOCK = "vectors", "rows", "writer.lock"
_FORMAT = 1
_SHARD_BYTES = 2**28
_HEADER_BYTES = 128  # of an .npy file; the same however many rows there are
_TRIES = 5  # to read while others append

SCHEMA = pa.schema(
  [
    ("path", pa.string()),
    ("sha256", pa.string()),
    ("person", pa.string()),
    ("camera", pa.string()),
    ("time", pa.float64()),
    ("track", pa.string()),
  ]
)


class GalleryError(UserError):
  """A gallery is missing, damaged, of another network, or cannot do what was asked."""


class Shard(NamedTuple):
  """A file of vectors and the table of its rows."""

  name: str
  rows: int
  table: str

  def vectors_file(self, folder: Path) -> Path:
    """Returns the .npy file."""
    return folder / _VECTORS / f"{self.name}.npy"


def create(folder: Path, model: Mapping[str, Any]) -> None:
  """Makes an empty gallery.

  Args:
    folder: new, or empty.
    model: what `model.json` says.

  Raises:
    GalleryError: when something is there already.
    WriteError: when it cannot be written.
  """
  make_folder(folder)
  with writing(folder):
    there = {entry.name for entry in folder.iterdir()}
  # The lock comes first, so with it the others are what a killed `create` has left.
  foreign = there - {MODEL, _LOCK, _VECTORS, _ROWS} if _LOCK in there else there
  if foreign:
    raise GalleryError(f"{folder}: not empty, it has {min(foreign)}; name a new folder")
  with writing(folder / _LOCK):
    (folder / _LOCK).touch()
  make_folder(folder / _VECTORS)
  make_folder(folder / _ROWS)
  write_json(folder / MODEL, dict(model))
  _write_manifest(folder, [])


def read_model(folder: Path) -> dict[str, Any]:
  """Returns what `model.json` says.

  Raises:
    GalleryError: when there is no gallery, or it is damaged.
  """
  if not (folder / MANIFEST).exists():
    raise GalleryError(f"{folder}: no gallery there; tools.embed makes one")
  return _read_json(folder / MODEL)


def read_shards(folder: Path) -> list[Shard]:
  """Returns what is committed.

  Raises:
    GalleryError: when the manifest is missing or damaged, or of a later version.
  """
  content = _read_json(folder / MANIFEST)
  try:
    if content["format"] != _FORMAT:
      raise GalleryError(
        f"{folder}: a gallery of format {content['format']}, this program knows {_FORMAT}"
      )
    return [Shard(str(s["name"]), int(s["rows"]), str(s["table"])) for s in content["shards"]]
  except (KeyError, TypeError, ValueError) as error:
    if isinstance(error, UserError):
      raise
    raise GalleryError(f"{folder / MANIFEST}: damaged; embed the images anew") from error


def map_vectors(folder: Path, shard: Shard, width: int) -> np.ndarray:
  """Returns a shard's vectors, [rows, width] float32, read from the file as they are needed.

  Raises:
    GalleryError: when the file is missing or too short.
  """
  file = shard.vectors_file(folder)
  wanted = _HEADER_BYTES + shard.rows * width * 4
  size = file.stat().st_size if file.exists() else 0
  if size < wanted:
    raise GalleryError(f"{file}: damaged, it has {size} of {wanted} bytes; embed the images anew")
  return np.memmap(file, "<f4", "r", _HEADER_BYTES, (shard.rows, width))


def read_tables(folder: Path) -> tuple[list[Shard], pa.Table]:
  """Returns what is committed, and its rows.

  Raises:
    GalleryError: when a file is missing or damaged.
  """
  for _ in range(_TRIES):  # an append removes the table that it has written anew
    shards = read_shards(folder)
    try:
      tables = [_read_table(folder, shard) for shard in shards]
      return shards, pa.concat_tables([SCHEMA.empty_table(), *tables])
    except FileNotFoundError as error:
      missing = error
  raise GalleryError(f"{folder}: a table of rows is missing; embed the images anew") from missing


def append(folder: Path, vectors: np.ndarray, rows: pa.Table) -> None:
  """Appends rows, all or none. Waits for others who append.

  Args:
    folder: of a gallery.
    vectors: [N, D] float32.
    rows: N rows of `SCHEMA`.

  Raises:
    GalleryError: when the gallery is damaged.
    WriteError: when it cannot be written; what was committed stays.
  """
  with writing(folder / _LOCK):
    lock = file_lock.acquire(folder / _LOCK, shared=False, wait=True)
  try:
    shards = read_shards(folder)
    capacity = max(1, _SHARD_BYTES // (4 * vectors.shape[1]))
    start = 0
    while start < len(vectors):
      if not shards or shards[-1].rows >= capacity:
        shards.append(Shard(f"{len(shards):06}", 0, ""))
      stop = min(len(vectors), start + capacity - shards[-1].rows)
      part = rows.slice(start, stop - start)
      shards[-1] = _append_to_shard(folder, shards[-1], vectors[start:stop], part)
      start = stop
    _write_manifest(folder, shards)
    _tidy(folder, shards)
  finally:
    lock.release()


def _append_to_shard(folder: Path, shard: Shard, vectors: np.ndarray, rows: pa.Table) -> Shard:
  """Writes what becomes part of a shard with the next manifest, and returns that shard."""
  total, width = shard.rows + len(vectors), vectors.shape[1]
  file = shard.vectors_file(folder)
  with writing(file), open(os.open(file, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as stream:
    stream.seek(_HEADER_BYTES + shard.rows * width * 4)
    stream.write(np.ascontiguousarray(vectors, "<f4").data)
    stream.seek(0)
    stream.write(_npy_header(total, width))  # for other programs; the manifest counts
    stream.flush()
    os.fsync(stream.fileno())
  if shard.rows:
    rows = pa.concat_tables([_read_table(folder, shard), rows])
  grown = Shard(shard.name, total, f"{shard.name}-{total:07}.parquet")
  with replacing(folder / _ROWS / grown.table) as unfinished:
    pq.write_table(rows.combine_chunks(), unfinished)
    _bring_to_disk(unfinished)
  return grown


def _npy_header(rows: int, width: int) -> bytes:
  """Returns the head of an .npy file, of `_HEADER_BYTES` whatever the numbers."""
  header = io.BytesIO()
  shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
  np.lib.format.write_array_header_1_0(header, shape)
  text = header.getvalue()[10:].rstrip().ljust(_HEADER_BYTES - 11) + b"\n"
  return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _read_table(folder: Path, shard: Shard) -> pa.Table:
  file = folder / _ROWS / shard.table
  try:
    table = pq.read_table(file, schema=SCHEMA)
  except pa.ArrowInvalid as error:
    raise GalleryError(f"{file}: damaged; embed the images anew") from error
  if len(table) != shard.rows:
    raise GalleryError(f"{file}: has {len(table)} of {shard.rows} rows; embed the images anew")
  return table


def _write_manifest(folder: Path, shards: Sequence[Shard]) -> None:
  content = {"format": _FORMAT, "shards": [shard._asdict() for shard in shards]}
  with replacing(folder / MANIFEST) as unfinished:
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    _bring_to_disk(unfinished)


def _tidy(folder: Path, shards: Sequence[Shard]) -> None:
  """Removes tables that the manifest no longer names, and what a killed process left."""
  counting = {shard.table for shard in shards}
  for file in (folder / _ROWS).iterdir():
    if file.name not in counting:
      file.unlink(missing_ok=True)


def _bring_to_disk(file: Path) -> None:
  with file.open("rb") as stream:
    os.fsync(stream.fileno())


def _read_json(file: Path) -> dict[str, Any]:
  try:
    content = json.loads(file.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise GalleryError(f"{file}: cannot be read ({error}); embed the images anew") from error
  if not isinstance(content, dict):
    raise GalleryError(f"{file}: damaged; embed the images anew")
  return content
