"""Files of weights: every format is read exactly, and every bad file is one clear error."""

import json
import os
import pickle
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from magnifier_jax.interop.pytorch_file import WeightsFileError, pickle_state_dict
from magnifier_jax.interop.weights_file import read_weights, sha256, write_weights

SUFFIXES = (".pth", ".pt", ".safetensors")


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
  random = np.random.default_rng(0)
  return {
    "conv.weight": random.standard_normal((4, 3, 2, 2)).astype(np.float32),
    "transposed": random.standard_normal((3, 5)).astype(np.float32).T,
    "double": random.standard_normal(3),
    "half": random.standard_normal(3).astype(np.float16),
    "bfloat": random.standard_normal(5).astype(ml_dtypes.bfloat16),
    "scalar": np.array(0.25, np.float32),
    "empty": np.zeros((0, 2), np.float32),
    "not a number": np.array([np.nan, -np.inf, -0.0, 1e-45], np.float32),
    "bn.num_batches_tracked": np.array(3, np.int64),
  }


def assert_same(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> None:
  """Compares bit for bit."""
  assert list(ours) == list(theirs)
  for name, array in ours.items():
    assert array.dtype == theirs[name].dtype, name
    assert array.shape == theirs[name].shape, name
    assert array.tobytes() == theirs[name].tobytes(), name


def write_legacy(
  path: Path,
  arrays: Mapping[str, np.ndarray],
  protocol: int = 1001,
  stored: Mapping[str, np.ndarray] | None = None,
) -> None:
  """Writes the format of PyTorch < 1.6; `stored` may lie about what the pickle says."""
  numbers = (0x1950A86A20F9469CFC6C, protocol, {"little_endian": True})
  keys = [str(i) for i in range(len(arrays))]
  with path.open("wb") as file:
    file.write(b"".join(pickle.dumps(number, 2) for number in numbers))
    file.write(pickle_state_dict(arrays) + pickle.dumps(keys, 2))
    for array in (stored or arrays).values():
      file.write(array.size.to_bytes(8, "little") + array.tobytes())


def write_archive(path: Path, saved: bytes, **records: bytes) -> None:
  """Writes the zip format around any pickle."""
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", saved)
    for name, data in {"version": b"3\n", **records}.items():
      archive.writestr(f"archive/{name}", data)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_is_exact(tmp_path: Path, arrays: dict, suffix: str):
  path = tmp_path / f"weights{suffix}"
  digest = write_weights(path, arrays)
  read = read_weights(path)
  assert_same(read.state_dict, arrays)
  assert read.sha256 == digest == sha256(path)
  assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_same_arrays_give_the_same_bytes_at_any_time(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict, suffix: str
):
  first = write_weights(tmp_path / f"a{suffix}", arrays)
  monkeypatch.setattr(time, "time", lambda: 1e9)
  assert write_weights(tmp_path / f"b{suffix}", arrays) == first


def test_legacy_format_is_exact(tmp_path: Path, arrays: dict):
  write_legacy(tmp_path / "old.pth", arrays)
  assert_same(read_weights(tmp_path / "old.pth").state_dict, arrays)


def test_prefix_of_data_parallel_is_dropped(tmp_path: Path, arrays: dict):
  write_weights(tmp_path / "a.pth", {f"module.{name}": array for name, array in arrays.items()})
  assert_same(read_weights(tmp_path / "a.pth").state_dict, arrays)


def test_prefix_that_only_some_have_stays(tmp_path: Path):
  mixed = {"module.a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}
  write_weights(tmp_path / "a.pth", mixed)
  assert list(read_weights(tmp_path / "a.pth").state_dict) == ["module.a", "b"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
def test_truncated_file(tmp_path: Path, arrays: dict, suffix: str, share: float):
  path = tmp_path / f"cut{suffix}"
  write_weights(path, arrays)
  data = path.read_bytes()
  path.write_bytes(data[: max(10, int(share * len(data)))])
  with pytest.raises(WeightsFileError, match=r"cut\..*truncated or damaged"):
    read_weights(path)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.999])
def test_truncated_legacy_file(tmp_path: Path, arrays: dict, share: float):
  path = tmp_path / "cut.pth"
  write_legacy(path, arrays)
  data = path.read_bytes()
  path.write_bytes(data[: int(share * len(data))])
  with pytest.raises(WeightsFileError, match=r"cut\.pth: truncated or damaged"):
    read_weights(path)


def test_changed_bit_in_an_archive(tmp_path: Path, arrays: dict):
  path = tmp_path / "bit.pth"
  write_weights(path, arrays)
  data = bytearray(path.read_bytes())
  data[data.index(arrays["conv.weight"].tobytes()) + 5] ^= 4
  path.write_bytes(data)
  with pytest.raises(WeightsFileError, match=r"damaged.*CRC"):
    read_weights(path)


@pytest.mark.parametrize(
  ("offsets", "dtype", "extra", "message"),
  [
    ([0, 8], "F32", b"", None),
    ([0, 8], "F32", b"more", "do not fill the file"),
    ([-8, 0], "F32", b"", "bytes -8 to 0 of 8"),
    ([4, 12], "F32", b"", "bytes 4 to 12 of 8"),
    ([0, 8], "F64", b"", "for F64 of shape"),
    ([0, 8], "F6_E3M2", b"", "KeyError"),
  ],
)
def test_damaged_safetensors_header(
  tmp_path: Path, offsets: list[int], dtype: str, extra: bytes, message: str | None
):
  header = {"a": {"dtype": dtype, "shape": [2], "data_offsets": offsets}}
  text, path = json.dumps(header).encode(), tmp_path / "a.safetensors"
  path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8) + extra)
  if message is None:
    assert_same(read_weights(path).state_dict, {"a": np.zeros(2, np.float32)})
  else:
    with pytest.raises(WeightsFileError, match=f"damaged .*{message}"):
      read_weights(path)


class _RunsCode:
  """Pickles to a call that leaves a file behind."""

  def __init__(self, marker: Path):
    self._marker = marker

  def __reduce__(self) -> tuple:
    return os.system, (f"touch {self._marker}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_not_run(tmp_path: Path, legacy: bool):
  marker, path = tmp_path / "marker", tmp_path / "code.pth"
  saved = pickle.dumps({"a": _RunsCode(marker)}, 2)
  if legacy:
    path.write_bytes(saved)
  else:
    write_archive(path, saved)
  with pytest.raises(WeightsFileError, match=r"code\.pth: has pickled Python code .*\.system"):
    read_weights(path)
  assert not marker.exists()
  pickle.loads(saved)
  assert marker.exists(), "the pickle would have run nothing anyway"


def test_names_inside_allowed_modules_are_refused(tmp_path: Path):
  for module, name in [("torch.nn.modules.linear", "Linear"), ("torch", "load")]:
    path = tmp_path / "module.pth"
    write_archive(path, f"c{module}\n{name}\n.".encode())
    with pytest.raises(WeightsFileError, match=rf"uses {module}\.{name}.*newer PyTorch"):
      read_weights(path)


@pytest.mark.parametrize(
  ("records", "message"),
  [
    ({"version": b"11\n"}, "version 11 of PyTorch's file format; versions up to 10"),
    ({".format_version": b"2"}, "format_version 2 of PyTorch's file format; versions up to 1"),
    ({"byteorder": b"big"}, "big-endian"),
  ],
)
def test_newer_or_foreign_archive(tmp_path: Path, records: dict[str, bytes], message: str):
  write_archive(tmp_path / "new.pth", pickle_state_dict({}), **records)
  with pytest.raises(WeightsFileError, match=message):
    read_weights(tmp_path / "new.pth")


def test_newer_legacy_protocol(tmp_path: Path, arrays: dict):
  write_legacy(tmp_path / "new.pth", arrays, protocol=1002)
  with pytest.raises(WeightsFileError, match=r"protocol 1002 .* 1001 is read"):
    read_weights(tmp_path / "new.pth")


@pytest.mark.parametrize(
  ("saved", "message"),
  [
    ({}, "an empty dict"),
    ([1, 2], "not a state_dict, but a list"),
    ({"epoch": 3}, "'epoch' is a int"),
    ({"state_dict": {"a": "text"}}, "'a' is a str"),
  ],
)
def test_not_a_state_dict(tmp_path: Path, saved: Any, message: str):
  write_archive(tmp_path / "other.pth", pickle.dumps(saved, 2))
  with pytest.raises(WeightsFileError, match=message):
    read_weights(tmp_path / "other.pth")


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"", "empty"),
    (b"\xff\xd8\xff\xe0 a photograph", "neither a PyTorch nor a safetensors file"),
    (pickle.dumps(7, 2), "a pickle, but not one that PyTorch's save wrote"),
  ],
)
def test_another_kind_of_file(tmp_path: Path, data: bytes, message: str):
  (tmp_path / "other.pth").write_bytes(data)
  with pytest.raises(WeightsFileError, match=message):
    read_weights(tmp_path / "other.pth")


def test_another_archive(tmp_path: Path):
  with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
    archive.writestr("photographs/list.txt", "none")
  with pytest.raises(WeightsFileError, match="a zip archive, but not one that PyTorch's save"):
    read_weights(tmp_path / "other.pth")


def test_missing_file(tmp_path: Path):
  with pytest.raises(WeightsFileError, match=r"nowhere\.pth: cannot be read: No such file"):
    read_weights(tmp_path / "nowhere.pth")


def test_quantised_weights_are_refused(tmp_path: Path):
  write_weights(tmp_path / "int8.pth", {"conv.weight": np.zeros(3, np.int8)})
  with pytest.raises(WeightsFileError, match=r"conv\.weight is of type int8"):
    read_weights(tmp_path / "int8.pth")


@pytest.mark.parametrize("shape", [(5,), (2, 2), (1000, 1000)])
def test_tensor_outside_its_storage(tmp_path: Path, shape: tuple[int, ...]):
  """A forged view must not read other memory."""
  forged, stored = np.zeros(shape, np.float32), np.zeros(3, np.float32)
  write_legacy(tmp_path / "forged.pth", {"a": forged}, stored={"a": stored})
  with pytest.raises(WeightsFileError, match=r"damaged .*in 3 stored values"):
    read_weights(tmp_path / "forged.pth")


def test_unknown_suffix(tmp_path: Path, arrays: dict):
  with pytest.raises(WeightsFileError, match=r"must end in one of \.pth, \.pt, \.safetensors"):
    write_weights(tmp_path / "weights.npz", arrays)


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
  torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install .[torch]")
  bfloat = torch.from_numpy(arrays["bfloat"].view(np.int16)).view(torch.bfloat16)
  rest = {name: torch.from_numpy(a) for name, a in arrays.items() if name != "bfloat"}
  return {name: bfloat if name == "bfloat" else rest[name] for name in arrays}


@pytest.mark.parametrize("zip_format", [True, False])
def test_what_pytorch_writes(tmp_path: Path, arrays: dict, zip_format: bool):
  tensors = _tensors(arrays)
  torch = pytest.importorskip("torch")
  base = torch.arange(10.0)
  tensors |= {"slice": base[2:6], "steps": base[::3], "parameter": torch.nn.Parameter(base[:2])}
  expected = arrays | {
    "slice": np.arange(2, 6, dtype=np.float32),
    "steps": np.arange(0, 10, 3, dtype=np.float32),
    "parameter": np.arange(2, dtype=np.float32),
  }
  for saved in (tensors, {"epoch": 3, "state_dict": tensors, "lr": [0.1]}):
    torch.save(saved, tmp_path / "a.pth", _use_new_zipfile_serialization=zip_format)
    assert_same(read_weights(tmp_path / "a.pth").state_dict, expected)


def test_pytorch_reads_what_we_write(tmp_path: Path, arrays: dict):
  tensors = _tensors(arrays)
  torch = pytest.importorskip("torch")
  write_weights(tmp_path / "a.pth", arrays)
  read = torch.load(tmp_path / "a.pth", weights_only=True)
  assert list(read) == list(tensors)
  for name, tensor in tensors.items():
    assert read[name].dtype == tensor.dtype
    np.testing.assert_array_equal(read[name].double().numpy(), tensor.double().numpy())


def test_a_whole_pytorch_module_is_refused(tmp_path: Path):
  torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install .[torch]")
  torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
  with pytest.raises(WeightsFileError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
    read_weights(tmp_path / "module.pth")


def test_the_safetensors_library_agrees(tmp_path: Path, arrays: dict):
  library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
  del arrays["bfloat"]  # the library has no numpy type for it
  arrays["transposed"] = np.ascontiguousarray(arrays["transposed"])
  write_weights(tmp_path / "ours.safetensors", arrays)
  read = library.load_file(tmp_path / "ours.safetensors")
  assert_same(dict(sorted(read.items())), dict(sorted(arrays.items())))
  library.save_file(arrays, tmp_path / "theirs.safetensors")
  read = read_weights(tmp_path / "theirs.safetensors").state_dict
  assert_same(dict(sorted(read.items())), dict(sorted(arrays.items())))
