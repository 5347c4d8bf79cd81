"""What training scripts save beside the weights is read past, and nothing of it is run."""

import argparse
import collections
import datetime
import os
import pathlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magnifier_jax.interop.pickled_values import NumpyArray, find_value
from magnifier_jax.interop.pytorch_file import WeightsFileError, read_zip
from magnifier_jax.interop.weights_file import read_weights
from tests.interop.test_weights_file import write_archive

PLAIN = {
  "rank1": np.float64(0.9),
  "single": np.float32(0.25),
  "epoch": np.int64(4),
  "is_best": np.bool_(True),
  "loss": 0.5,
  "none": None,
  "bytes": b"\xff\x00a",
  "no bytes": b"",
  "text": np.str_("words"),
  "complex": 1 + 2j,
  "set": {1, 2},
  "frozen": frozenset({3}),
  "ordered": collections.OrderedDict(a=[1, {"b": None}]),
}
ARRAYS = {
  "array": np.arange(6.0).reshape(2, 3),
  "transposed": np.arange(6).reshape(2, 3).T,
  "big-endian": np.arange(3, dtype=">i2"),
  "empty": np.zeros((0, 3), np.float16),
  "cmc": np.array([0.5, 1.0], np.float32),
  "names": np.array(["a", "bc"]),
  "no dimension": np.array(7),
}
KEPT_BY_NOBODY = {
  "args": argparse.Namespace(lr=1.0, steps=[40, 70], extra={"x": None}),
  "default": collections.defaultdict(list, {1: [2]}),
  "queue": collections.deque([1]),
  "counter": collections.Counter("aab"),
  "when": datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC).replace(tzinfo=None),
  "path": pathlib.PurePosixPath("runs/a"),
  "mutable": bytearray(b"xy"),
}


@pytest.fixture(params=range(2, 6), ids="protocol {}".format)
def protocol(request: pytest.FixtureRequest) -> int:
  return request.param


def saved(path: Path, content: Any, protocol: int) -> Any:
  """Returns what is read of a zip file with a pickle."""
  write_archive(path, pickle.dumps(content, protocol))
  return read_zip(path)


def test_plain_values_are_what_they_were(tmp_path: Path, protocol: int):
  assert saved(tmp_path / "a.pth", PLAIN, protocol) == PLAIN


def test_arrays_are_what_they_were(tmp_path: Path, protocol: int):
  read = saved(tmp_path / "a.pth", ARRAYS, protocol)
  for name, array in ARRAYS.items():
    np.testing.assert_array_equal(read[name], array, strict=True, err_msg=name)


def test_other_values_are_read_past(tmp_path: Path, protocol: int):
  read = saved(tmp_path / "a.pth", {**KEPT_BY_NOBODY, "last": 1}, protocol)
  assert read.keys() == {*KEPT_BY_NOBODY, "last"}
  assert read["last"] == 1


@pytest.mark.parametrize("zip_format", [True, False])
def test_a_training_scripts_file(tmp_path: Path, protocol: int, zip_format: bool):
  torch = pytest.importorskip("torch")
  weights = {"conv.weight": torch.arange(6.0).reshape(2, 3)}
  content = {
    "state_dict": weights,
    "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"betas": (0.9, 1)}]},
    "device": torch.device("cpu"),
    "shape": torch.Size([1, 2]),
    **(PLAIN | ARRAYS | KEPT_BY_NOBODY),
  }
  path = tmp_path / "model_best.pth.tar"
  torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zip_format)
  read = read_weights(path).state_dict
  assert list(read) == ["conv.weight"]
  np.testing.assert_array_equal(read["conv.weight"], np.arange(6.0).reshape(2, 3))


class _Calls:
  """Pickles to a call."""

  def __init__(self, function: Any, *arguments: Any):
    self._call = function, arguments

  def __reduce__(self) -> tuple:
    return self._call


@pytest.mark.parametrize(
  "call",
  [
    _Calls(os.system, "true"),
    _Calls(eval, "1"),
    _Calls(getattr, PLAIN, "keys"),
    _Calls(np.load, "a.npy"),
    _Calls(np.memmap, "a.npy"),
    _Calls(np.fromfile, "a.npy"),
    _Calls(__import__, "os"),
  ],
)
def test_any_other_name_is_refused(tmp_path: Path, call: _Calls):
  with pytest.raises(WeightsFileError, match=r"pickled Python code .*which is not run here"):
    saved(tmp_path / "a.pth", {"state_dict": {}, "x": call}, 2)


def test_arrays_of_objects_are_refused(tmp_path: Path):
  for array in (np.array([1, "x"], object), np.zeros(2, [("a", "f4"), ("b", "O")])):
    write_archive(tmp_path / "a.pth", pickle.dumps({"state_dict": {}, "x": array}, 2))
    with pytest.raises(WeightsFileError, match="numpy values of type"):
      read_weights(tmp_path / "a.pth")


def test_a_forged_array_reads_no_other_memory(tmp_path: Path):
  data = pickle.dumps(np.arange(4, dtype=np.int8), 2)
  for old, new in ((b"K\x04\x85", b"K\x7f\x85"), (b"\x00\x01\x02\x03", b"\x00")):
    assert old in data or old == b"\x00\x01\x02\x03"
    write_archive(tmp_path / "a.pth", data.replace(old, new))
    with pytest.raises(WeightsFileError, match="damaged"):
      read_weights(tmp_path / "a.pth")


def test_a_file_changes_nothing_for_the_next(tmp_path: Path):
  """A pickle can try to set attributes of what it names."""
  for module, name in (
    ("numpy.core.multiarray", "scalar"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("argparse", "Namespace"),
    ("builtins", "set"),
    ("collections", "OrderedDict"),
  ):
    value = find_value(module, name)
    before = dict(getattr(value, "__dict__", {}))
    # (None, {"__defaults__": 1, "array": 1}) is the state of a class with slots.
    state = b"N}(V__defaults__\nI1\nVarray\nI1\nu\x86"
    write_archive(tmp_path / "a.pth", f"c{module}\n{name}\n".encode() + state + b"b.")
    with pytest.raises(WeightsFileError):
      read_weights(tmp_path / "a.pth")
    assert dict(getattr(find_value(module, name), "__dict__", {})) == before
  assert not hasattr(NumpyArray, "array")
  assert saved(tmp_path / "a.pth", PLAIN, 2) == PLAIN
