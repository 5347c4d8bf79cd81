"""Reading and writing safetensors: a length, a JSON header, and the arrays one after another."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_DTYPES = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "I64": np.dtype("<i8"),
  "I32": np.dtype("<i4"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ALIGNMENT = 8  # bytes, of the first array


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
  """Returns {name: array}.

  Raises:
    ValueError, KeyError, TypeError: when the file is damaged.
  """
  data = path.read_bytes()
  start = 8 + int.from_bytes(data[:8], "little")
  header = json.loads(data[8:start])
  body = memoryview(data)[start:]
  arrays = {name: _array(body, **at) for name, at in header.items() if name != "__metadata__"}
  if sum(array.nbytes for array in arrays.values()) != len(body):
    raise ValueError("the arrays do not fill the file")
  return arrays


def _array(body: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
  start, stop = data_offsets
  kind = _DTYPES[dtype]
  if not 0 <= start <= stop <= len(body) or stop - start != math.prod(shape) * kind.itemsize:
    raise ValueError(f"bytes {start} to {stop} of {len(body)} for {dtype} of shape {shape}")
  return np.frombuffer(body[start:stop], kind).reshape(shape)


def write_safetensors(path: Path, state_dict: Mapping[str, np.ndarray]) -> None:
  """Writes {name: array}.

  Args:
    path: is overwritten. The same arrays give the same bytes.
    state_dict: arrays of a dtype that the format has.
  """
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  end = 0
  for name, array in state_dict.items():
    start, end = end, end + array.nbytes
    dtype = _NAMES[array.dtype.newbyteorder("<")]
    header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": (start, end)}
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % _ALIGNMENT)
  with path.open("wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for array in state_dict.values():
      file.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
