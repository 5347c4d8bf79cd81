"""What stands in for the names in a PyTorch file's pickle; none of them runs code of the file's.

Training scripts save numbers, settings and dates beside the weights. Numbers, numpy's scalars and
arrays and plain containers come out as what they are. The other names of `_INERT` come out as an
`Inert` that keeps nothing: nobody reads them here.
"""

import re
from collections import OrderedDict
from typing import Any

import numpy as np

_PLAIN_DTYPE = re.compile(r"[<>|=]?[biufcSU]\d+")  # no objects, no fields
_BYTE_ORDERS = "<>|="


class Inert:
  """Takes the place of a class; takes whatever a pickle does with an instance, and does nothing."""

  def __new__(cls, *_args: Any, **_kwargs: Any) -> "Inert":
    return super().__new__(cls)

  def __init__(self, *_args: Any, **_kwargs: Any):
    pass

  def __setstate__(self, _state: Any) -> None:
    pass

  def __setitem__(self, _key: Any, _value: Any) -> None:
    pass

  def append(self, _item: Any) -> None:
    """Drops an item."""

  def extend(self, _items: Any) -> None:
    """Drops items."""


class _Dtype:
  """A dtype in the making: numpy's own would take any state from the file."""

  def __init__(self, text: str, *_options: Any):
    if not isinstance(text, str) or not _PLAIN_DTYPE.fullmatch(text):
      raise ValueError(f"numpy values of type {text!r}")
    self.dtype = np.dtype(text)

  def __setstate__(self, state: tuple) -> None:
    if state[1] not in _BYTE_ORDERS:
      raise ValueError(f"byte order {state[1]!r}")
    self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray:
  """An array in the making, `array` when its state has come."""

  array: np.ndarray

  def __setstate__(self, state: tuple) -> None:
    _version, shape, dtype, is_fortran, data = state
    self.array = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: bytes, dtype: _Dtype, shape: tuple, order: str = "C") -> np.ndarray:
  if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
    raise TypeError(f"a numpy array of {type(data).__name__}")
  return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


class _Functions:
  """What a pickle calls by name.

  As methods of an instance: a pickle can set attributes of what it names, which would change a
  function for all files.
  """

  def scalar(self, dtype: _Dtype, data: bytes) -> Any:
    """Returns a Python number or text."""
    return _array(data, dtype, ()).item()

  def reconstruct(self, *_arguments: Any) -> NumpyArray:
    """Returns an array that has yet to get its state."""
    return NumpyArray()

  def from_buffer(self, data: bytes, dtype: _Dtype, shape: tuple, order: str) -> NumpyArray:
    """Returns an array of protocol 5."""
    made = NumpyArray()
    made.array = _array(data, dtype, shape, order)
    return made

  def encode(self, text: str, encoding: str) -> bytes:
    """Returns bytes as protocol 2 has them, PyTorch's default."""
    if encoding != "latin1":
      raise ValueError(f"bytes encoded as {encoding!r}")
    return text.encode(encoding)

  def no_bytes(self) -> bytes:
    """Returns empty bytes as protocol 2 has them."""
    return b""

  def default_dict(self, *_factory: Any) -> dict:
    """Returns a dict to be filled."""
    return {}


def find_value(module: str, name: str) -> Any:
  """Returns what stands for a name in a pickle; None for one that is not known."""
  module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
  # numpy 2 gave the folder that these lie in another name.
  module = re.sub(r"^numpy\.(_?)core\.", "numpy.core.", module)
  if (module, name) in _VALUES:
    return _VALUES[module, name]
  return Inert if (module, name) in _INERT else None


_FUNCTIONS = _Functions()
_VALUES = {
  ("collections", "OrderedDict"): OrderedDict,
  ("collections", "defaultdict"): _FUNCTIONS.default_dict,
  ("builtins", "set"): set,
  ("builtins", "frozenset"): frozenset,
  ("builtins", "complex"): complex,
  ("builtins", "bytes"): _FUNCTIONS.no_bytes,
  ("_codecs", "encode"): _FUNCTIONS.encode,
  ("numpy", "dtype"): _Dtype,
  ("numpy", "ndarray"): NumpyArray,
  ("numpy.core.multiarray", "scalar"): _FUNCTIONS.scalar,
  ("numpy.core.multiarray", "_reconstruct"): _FUNCTIONS.reconstruct,
  ("numpy.core.numeric", "_frombuffer"): _FUNCTIONS.from_buffer,
}
_INERT = frozenset(
  {
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("collections", "Counter"),
    ("collections", "deque"),
    ("datetime", "date"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
    ("pathlib._local", "WindowsPath"),
    ("torch", "Size"),
    ("torch", "device"),
    *(("builtins", name) for name in ("bool", "bytearray", "dict", "float", "int", "list")),
    *(("builtins", name) for name in ("range", "slice", "str", "tuple")),
  }
)
