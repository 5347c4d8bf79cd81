"""A file of embeddings with who is on each image: ours, or any other toolbox's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

from magnifier_jax.errors import UserError
from magnifier_jax.evaluation.embedding import Embeddings
from magnifier_jax.evaluation.identities import Identities
from magnifier_jax.files.whole_file import replacing

# What scripts of other toolboxes call the same: torchreid's variables, and the `pytorch_result.mat`
# of the Market-1501 baselines, whose ids are rows of a matrix.
_OTHER_NAMES = {
  "query/branch/features": ("query_features", "qf", "query_f"),
  "query/person_id": ("query_pids", "q_pids", "query_label"),
  "query/camera_id": ("query_camids", "q_camids", "query_cam"),
  "gallery/branch/features": ("gallery_features", "gf", "gallery_f"),
  "gallery/person_id": ("gallery_pids", "g_pids", "gallery_label"),
  "gallery/camera_id": ("gallery_camids", "g_camids", "gallery_cam"),
}
_FORMAT = "docs/evaluation.md says what belongs in it"


class EmbeddingsFileError(UserError):
  """A file of saved embeddings is missing or is not one."""


class IdentifiedEmbeddings(NamedTuple):
  """The query or the gallery: vectors, and whose they are."""

  embeddings: Embeddings
  identities: Identities
  paths: Sequence[str] | None = None  # of the image files; None where nobody said them


class SavedEmbeddings(NamedTuple):
  """What a file holds."""

  query: IdentifiedEmbeddings
  gallery: IdentifiedEmbeddings
  provenance: str | None = None  # where they come from, in JSON; None where nobody said it


def save_embeddings(path: Path, saved: SavedEmbeddings) -> None:
  """Writes a file that `load_embeddings` reads.

  Raises:
    WriteError: when it cannot be written.
  """
  arrays = {} if saved.provenance is None else {"provenance": np.array(saved.provenance)}
  for side, (embeddings, who, paths) in {"query": saved.query, "gallery": saved.gallery}.items():
    arrays |= {f"{side}/branch/{name}": vectors for name, vectors in embeddings.branches.items()}
    arrays |= {f"{side}/person_id": who.person_id, f"{side}/camera_id": who.camera_id}
    if paths is not None:
      arrays[f"{side}/path"] = np.array(list(paths), str)
  with replacing(path) as unfinished:
    np.savez(unfinished, **arrays)


def load_embeddings(path: Path) -> SavedEmbeddings:
  """Reads the embeddings of queries and gallery, and checks all that a ranking rests on.

  Raises:
    EmbeddingsFileError: when the file is missing, damaged, or holds what cannot be ranked.
  """
  arrays = _with_our_names(_read_arrays(path))
  try:
    query, gallery = (_side(arrays, side) for side in ("query", "gallery"))
    _check_same_branches(query.embeddings, gallery.embeddings)
  except EmbeddingsFileError as error:
    raise EmbeddingsFileError(f"{path}: {error}") from None
  written = arrays.get("provenance")
  return SavedEmbeddings(query, gallery, None if written is None else str(written))


def _with_our_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns arrays by the names of `save_embeddings`."""
  renamed = dict(arrays)
  for ours, theirs in _OTHER_NAMES.items():
    found = next((name for name in theirs if name in arrays), None)
    if found is not None and ours not in arrays:
      values = renamed.pop(found)
      is_row = "_id" in ours and values.ndim == 2 and 1 in values.shape
      renamed[ours] = values.ravel() if is_row else values
  return renamed


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
  try:
    if path.suffix == ".mat":
      return {name: array for name, array in scipy.io.loadmat(path).items() if name[0] != "_"}
    loaded = np.load(path)
    if isinstance(loaded, np.ndarray):
      raise EmbeddingsFileError(
        f"{path}: a single array (.npy); an .npz of several is wanted, and {_FORMAT}"
      )
    with loaded:
      return dict(loaded)
  except OSError as error:
    raise EmbeddingsFileError(f"{path}: cannot be read: {error.strerror or error}") from error
  except EmbeddingsFileError:
    raise
  except Exception as error:  # a damaged archive raises almost anything
    reason = str(error).partition("\n")[0] or type(error).__name__
    raise EmbeddingsFileError(
      f"{path}: not an .npz or .mat file of plain arrays ({reason})"
    ) from error


def _side(arrays: Mapping[str, np.ndarray], side: str) -> IdentifiedEmbeddings:
  prefix = f"{side}/branch/"
  names = [name for name in arrays if name.startswith(prefix)]
  ids = [f"{side}/{field}" for field in Identities._fields]
  missing = [f"{prefix}NAME"] * (not names) + [name for name in ids if name not in arrays]
  if missing:
    has = ", ".join(arrays) or "nothing"
    raise EmbeddingsFileError(f"{', '.join(missing)} is missing; it has {has}, and {_FORMAT}")
  branches = {name.removeprefix(prefix): _vectors(arrays[name], name) for name in names}
  rows = {name: len(vectors) for name, vectors in branches.items()}
  if len(set(rows.values())) > 1:
    raise EmbeddingsFileError(f"{prefix}…: as many rows in each are wanted, there are {rows}")
  num_rows = next(iter(rows.values()))
  return IdentifiedEmbeddings(
    Embeddings(branches),
    Identities(*(_ids(arrays[name], num_rows, name) for name in ids)),
    _paths(arrays.get(f"{side}/path"), num_rows, f"{side}/path"),
  )


def _paths(values: np.ndarray | None, num_rows: int, name: str) -> list[str] | None:
  if values is None:
    return None
  if values.shape != (num_rows,) or values.dtype.kind != "U":
    raise EmbeddingsFileError(
      f"{name}: the path of each of the {num_rows} rows is wanted, got {values.dtype} of shape "
      f"{values.shape}; leave it out where paths are not known"
    )
  return values.tolist()


def _vectors(values: np.ndarray, name: str) -> np.ndarray:
  """Returns [N, D] float32 whose rows can be normalised."""
  if values.ndim != 2 or values.dtype.kind not in "fiu":
    raise EmbeddingsFileError(
      f"{name}: a row of numbers for each image is wanted, [N, D] of floating point; got "
      f"{values.dtype} of shape {values.shape}"
    )
  if not values.size:
    raise EmbeddingsFileError(f"{name}: it is empty, of shape {values.shape}")
  with np.errstate(over="ignore"):
    vectors = values.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
  for is_wrong, what in (
    (~np.isfinite(values).all(axis=1), "has a NaN or an infinity"),
    (lengths == 0, "is zero, so it has no direction"),
    (~np.isfinite(lengths), "is too long for float32"),
  ):
    rows = np.flatnonzero(is_wrong)
    if len(rows):
      raise EmbeddingsFileError(
        f"{name}: row {rows[0]} {what} ({len(rows)} of {len(values)} rows are so); leave such "
        "images out, or embed them again"
      )
  return vectors


def _ids(values: np.ndarray, num_rows: int, name: str) -> np.ndarray:
  """Returns [N] int32."""
  if values.shape != (num_rows,) or values.dtype.kind not in "iu":
    raise EmbeddingsFileError(
      f"{name}: one whole number for each of the {num_rows} rows is wanted, got {values.dtype} of "
      f"shape {values.shape}"
    )
  limits = np.iinfo(np.int32)
  outside = np.flatnonzero((values < limits.min) | (values > limits.max))
  if len(outside):
    raise EmbeddingsFileError(
      f"{name}: {values[outside[0]]} in row {outside[0]} is beyond ±2³¹; number from 0"
    )
  return values.astype(np.int32)


def _check_same_branches(query: Embeddings, gallery: Embeddings) -> None:
  widths = [
    {name: vectors.shape[1] for name, vectors in side.branches.items()} for side in (query, gallery)
  ]
  if widths[0] != widths[1]:
    raise EmbeddingsFileError(
      f"queries and gallery must have the same branches with the same widths; queries have "
      f"{widths[0]}, the gallery {widths[1]}"
    )
