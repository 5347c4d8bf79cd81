"""A file of weights, in whichever format: PyTorch's zip or legacy one, or safetensors."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from magnifier_jax.files.whole_file import make_folder, replacing
from magnifier_jax.interop.pytorch_file import (
  WeightsFileError,
  read_legacy,
  read_zip,
  write_zip,
)
from magnifier_jax.interop.safetensors_file import read_safetensors, write_safetensors

_WRITERS = {".pth": write_zip, ".pt": write_zip, ".safetensors": write_safetensors}
# Where training scripts keep the state_dict among other things.
_NESTED = ("state_dict", "model_state_dict", "model")
_DATA_PARALLEL = "module."


class WeightsFile(NamedTuple):
  """What a file of weights holds."""

  path: Path
  sha256: str  # of the file's bytes, hexadecimal
  state_dict: dict[str, np.ndarray]


def read_weights(path: Path) -> WeightsFile:
  """Reads a `state_dict`; the format is told by the contents.

  The prefix of `DataParallel` is dropped, and a `state_dict` that lies in a dict of other things
  is taken out.

  Raises:
    WeightsFileError: when the file is missing, damaged, of an unknown or newer format, has code in
      it, or holds anything but floating-point arrays by name.
  """
  try:
    digest = sha256(path)
    saved = _reader(path)(path)
  except WeightsFileError:
    raise
  except OSError as error:
    raise WeightsFileError(f"{path}: cannot be read: {error.strerror or error}") from error
  except Exception as error:  # a damaged pickle, archive or header raises almost anything
    raise WeightsFileError(
      f"{path}: truncated or damaged ({type(error).__name__}: {error}); copy or download it again"
    ) from error
  return WeightsFile(path, digest, _state_dict(saved, path))


def _reader(path: Path) -> Callable[[Path], Any]:
  with path.open("rb") as file:
    head = file.read(9)
  if not head:
    raise WeightsFileError(f"{path}: empty")
  if head.startswith(b"PK"):
    return read_zip
  if head.startswith(b"\x80"):
    return read_legacy
  if head[8:] == b"{":
    return read_safetensors
  raise WeightsFileError(f"{path}: neither a PyTorch nor a safetensors file")


def sha256(path: Path) -> str:
  """Returns the SHA-256 of a file's bytes, hexadecimal."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _state_dict(saved: Any, path: Path) -> dict[str, np.ndarray]:
  nested = [saved[key] for key in _NESTED if key in saved] if isinstance(saved, dict) else []
  state_dict = nested[0] if nested and isinstance(nested[0], dict) else saved
  if not isinstance(state_dict, dict) or not state_dict:
    raise WeightsFileError(f"{path}: not a state_dict, but {_description(saved)}")
  for name, value in state_dict.items():
    if not isinstance(value, np.ndarray) or not isinstance(name, str):
      raise WeightsFileError(f"{path}: not a state_dict: {name!r} is {_description(value)}")
    if not _is_floating(value) and not name.endswith("num_batches_tracked"):
      raise WeightsFileError(f"{path}: {name} is of type {value.dtype}, not of floating point")
  if all(name.startswith(_DATA_PARALLEL) for name in state_dict):
    return {name.removeprefix(_DATA_PARALLEL): value for name, value in state_dict.items()}
  return state_dict


def _is_floating(array: np.ndarray) -> bool:
  # bfloat16 is outside numpy's own hierarchy of types.
  return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _description(value: Any) -> str:
  if isinstance(value, np.ndarray):
    return f"an array of shape {value.shape}"
  return f"a {type(value).__name__}" if value else f"an empty {type(value).__name__}"


def write_weights(path: Path, state_dict: Mapping[str, np.ndarray]) -> str:
  """Writes a `state_dict` in the format of the path's suffix, and returns its SHA-256.

  Raises:
    WeightsFileError: on an unknown suffix.
    WriteError: when the file cannot be written.
  """
  check_suffix(path)
  make_folder(path.parent)
  with replacing(path) as unfinished:
    _WRITERS[path.suffix](unfinished, state_dict)
  return sha256(path)


def check_suffix(path: Path) -> None:
  """Raises `WeightsFileError` unless the name of a file to write tells its format."""
  if path.suffix not in _WRITERS:
    raise WeightsFileError(f"{path}: the name must end in one of {', '.join(_WRITERS)}")
