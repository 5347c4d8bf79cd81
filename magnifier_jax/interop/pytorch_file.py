"""Reading and writing PyTorch's `state_dict` files without PyTorch, and without running code.

A `.pth` file is a pickle whose tensors are references to raw arrays beside it: entries of a zip
archive since PyTorch 1.6, the rest of the same file before. The pickle may name the few functions
that rebuild a tensor, and what `pickled_values` knows.
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from magnifier_jax.errors import UserError
from magnifier_jax.interop.pickled_values import NumpyArray, find_value

# Numbers of torch/serialization.py and caffe2/serialize/versions.h.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_NEWEST_ZIP_VERSION = 10
_NEWEST_FORMAT_VERSION = 1
_WRITTEN_ZIP_VERSION = 3

_STORAGE_DTYPES = {
  "FloatStorage": np.dtype("<f4"),
  "DoubleStorage": np.dtype("<f8"),
  "HalfStorage": np.dtype("<f2"),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ShortStorage": np.dtype("<i2"),
  "CharStorage": np.dtype("i1"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
}
_STORAGE_NAMES = {dtype: name for name, dtype in _STORAGE_DTYPES.items()}


class WeightsFileError(UserError):
  """A file of weights cannot be read or written."""


class _Storage(NamedTuple):
  """A flat array that tensors are views of."""

  key: str
  dtype: np.dtype


class _Tensor(NamedTuple):
  """A view of a storage; sizes and strides count elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def view(self, values: np.ndarray) -> np.ndarray:
    """Returns a contiguous copy of this view of a storage's values."""
    last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides))
    # as_strided checks nothing: a forged view would read outside the storage.
    numbers = (self.offset, *self.shape, *self.strides)
    if len(self.shape) != len(self.strides) or min(numbers) < 0:
      raise ValueError(f"a tensor of shape {self.shape} and strides {self.strides}")
    size = math.prod(self.shape)
    if size == 0:
      return np.zeros(self.shape, values.dtype)
    if last >= values.size or size > values.size:
      raise ValueError(f"a tensor of shape {self.shape} in {values.size} stored values")
    strides = tuple(step * values.itemsize for step in self.strides)
    return np.array(np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides))


class _Unpickler(pickle.Unpickler):
  """Builds tensors and plain values; refuses to look up anything else."""

  def __init__(self, file: BinaryIO, path: Path):
    super().__init__(file)
    self._path = path

  def find_class(self, module: str, name: str) -> Any:
    """Returns what stands for a name in the pickle."""
    known = {
      ("torch._utils", "_rebuild_tensor"): self._tensor,
      ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
      ("torch._utils", "_rebuild_parameter"): self._parameter,
    }
    if (module, name) in known:
      return known[module, name]
    if module == "torch" and name in _STORAGE_DTYPES:
      return name
    if (value := find_value(module, name)) is not None:
      return value
    if module.split(".")[0] == "torch":
      raise WeightsFileError(
        f"{self._path}: uses {module}.{name}, which is not read here: the file has more than a "
        "state_dict, or is of a newer PyTorch. Save model.state_dict() alone, or as safetensors"
      )
    raise WeightsFileError(
      f"{self._path}: has pickled Python code in it ({module}.{name}), which is not run here. "
      "Save model.state_dict() alone"
    )

  def persistent_load(self, pid: tuple) -> _Storage:
    """Returns the storage that a persistent id describes."""
    kind, dtype_name, key, _device, _size, *view = pid
    if kind != "storage" or any(view):
      raise ValueError(f"persistent id {pid}")
    return _Storage(key, _STORAGE_DTYPES[dtype_name])

  def _tensor(
    self, storage: _Storage, offset: int, shape: tuple, strides: tuple, *_unused: Any
  ) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(type(number) is int for number in numbers):
      raise TypeError(f"a tensor of {storage!r}")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))

  def _parameter(self, tensor: _Tensor, *_unused: Any) -> _Tensor:
    return tensor


def read_zip(path: Path) -> Any:
  """Reads a file of PyTorch ≥ 1.6.

  Returns:
    What was saved: nested dicts, lists and scalars, with numpy arrays for tensors, and `Inert` for
    what is of no use without the class that it is of.

  Raises:
    WeightsFileError: when it is damaged, of a newer format, or needs code to be run.
  """
  with zipfile.ZipFile(path) as archive:
    names = archive.namelist()
    root = next((name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")), "")
    if not root:
      raise WeightsFileError(f"{path}: a zip archive, but not one that PyTorch's save wrote")
    _check_zip_version(archive, root, path)
    with archive.open(f"{root}data.pkl") as file:
      saved = _Unpickler(file, path).load()
    storages: dict[str, np.ndarray] = {}

    def values(storage: _Storage) -> np.ndarray:
      if storage.key not in storages:
        storages[storage.key] = np.frombuffer(
          archive.read(f"{root}data/{storage.key}"), storage.dtype
        )
      return storages[storage.key]

    return _with_arrays(saved, values)


def _check_zip_version(archive: zipfile.ZipFile, root: str, path: Path) -> None:
  newest = {"version": _NEWEST_ZIP_VERSION, ".format_version": _NEWEST_FORMAT_VERSION}
  for name, known in newest.items():
    if f"{root}{name}" not in archive.namelist():
      continue
    version = int(archive.read(f"{root}{name}"))
    if version > known:
      raise WeightsFileError(
        f"{path}: {name.strip('.')} {version} of PyTorch's file format; versions up to {known} are "
        "read here. Save it as safetensors, or with an older PyTorch"
      )
  byte_order = f"{root}byteorder"
  if byte_order in archive.namelist() and archive.read(byte_order) != b"little":
    raise WeightsFileError(f"{path}: big-endian; save it as safetensors")


def read_legacy(path: Path) -> Any:
  """Reads a file of PyTorch < 1.6; returns and raises as `read_zip`."""
  with path.open("rb") as file:
    if _Unpickler(file, path).load() != _LEGACY_MAGIC:
      raise WeightsFileError(f"{path}: a pickle, but not one that PyTorch's save wrote")
    protocol = _Unpickler(file, path).load()
    if protocol != _LEGACY_PROTOCOL:
      raise WeightsFileError(
        f"{path}: protocol {protocol} of PyTorch's file format; {_LEGACY_PROTOCOL} is read here. "
        "Save it as safetensors, or with an older PyTorch"
      )
    if not _Unpickler(file, path).load()["little_endian"]:
      raise WeightsFileError(f"{path}: big-endian; save it as safetensors")
    saved = _Unpickler(file, path).load()
    dtypes = {storage.key: storage.dtype for storage in _storages(saved)}
    storages = {}
    for key in _Unpickler(file, path).load():
      size = int.from_bytes(file.read(8), "little")
      storages[key] = np.frombuffer(file.read(size * dtypes[key].itemsize), dtypes[key])
  return _with_arrays(saved, lambda storage: storages[storage.key])


def _storages(saved: Any) -> list[_Storage]:
  if isinstance(saved, _Tensor):
    return [saved.storage]
  children = saved.values() if isinstance(saved, dict) else saved
  nested = isinstance(saved, dict | list | tuple)
  return [storage for child in children for storage in _storages(child)] if nested else []


def _with_arrays(saved: Any, values: Callable[[_Storage], np.ndarray]) -> Any:
  """Returns `saved` with numpy arrays in the place of tensors."""
  if isinstance(saved, _Tensor):
    return saved.view(values(saved.storage))
  if isinstance(saved, NumpyArray):
    return saved.array
  if isinstance(saved, dict):
    return {key: _with_arrays(value, values) for key, value in saved.items()}
  if isinstance(saved, list | tuple):
    return [_with_arrays(value, values) for value in saved]
  return saved


def write_zip(path: Path, state_dict: Mapping[str, np.ndarray]) -> None:
  """Writes a `state_dict` that `torch.load(path, weights_only=True)` reads.

  Args:
    path: is overwritten. The same arrays give the same bytes.
    state_dict: {name: array of a dtype that PyTorch has}.
  """
  with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

    def add(name: str, data: bytes) -> None:
      # A ZipInfo of its own has a fixed date.
      archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)

    add("data.pkl", pickle_state_dict(state_dict))
    add("byteorder", b"little")
    for i, array in enumerate(state_dict.values()):
      add(f"data/{i}", array.astype(array.dtype.newbyteorder("<")).tobytes())
    add("version", f"{_WRITTEN_ZIP_VERSION}\n".encode())


def pickle_state_dict(arrays: Mapping[str, np.ndarray]) -> bytes:
  """Returns the pickle of an OrderedDict of tensors; the i-th array's values are storage `i`.

  Written opcode by opcode: Python's pickler wants to import what it names, and that is PyTorch.
  """
  ordered_dict = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
  parts = [pickle.PROTO, b"\x02", ordered_dict, pickle.MARK]
  for i, (name, array) in enumerate(arrays.items()):
    strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
    dtype = _STORAGE_NAMES[array.dtype.newbyteorder("<")]
    storage = (
      *(pickle.MARK, _text("storage"), _global("torch", dtype)),
      *(_text(str(i)), _text("cpu"), _integer(array.size), pickle.TUPLE, pickle.BINPERSID),
    )
    arguments = (_integer(0), _integers(array.shape), _integers(strides), pickle.NEWFALSE)
    parts += [_text(name), _global("torch._utils", "_rebuild_tensor_v2"), pickle.MARK, *storage]
    parts += [*arguments, ordered_dict, pickle.TUPLE, pickle.REDUCE]
  return b"".join([*parts, pickle.SETITEMS, pickle.STOP])


def _global(module: str, name: str) -> bytes:
  return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
  data = text.encode()
  return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _integer(number: int) -> bytes:
  data = pickle.encode_long(number)
  return pickle.LONG1 + bytes([len(data)]) + data


def _integers(numbers: tuple[int, ...]) -> bytes:
  return pickle.MARK + b"".join(map(_integer, numbers)) + pickle.TUPLE
