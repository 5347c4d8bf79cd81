"""A file of embeddings from anywhere: what can be ranked is read, anything else is one line."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from magnifier_jax.evaluation.embedding import Embeddings
from magnifier_jax.evaluation.embeddings_file import (
  EmbeddingsFileError,
  IdentifiedEmbeddings,
  SavedEmbeddings,
  load_embeddings,
  save_embeddings,
)
from magnifier_jax.evaluation.identities import Identities

Arrays = dict[str, np.ndarray]


def side(seed: int, rows: int) -> IdentifiedEmbeddings:
  random = np.random.default_rng(seed)
  branches = {
    "global": random.standard_normal((rows, 4)).astype(np.float32),
    "fusion": random.standard_normal((rows, 3)).astype(np.float32),
  }
  ids = Identities(np.arange(rows, dtype=np.int32), np.full(rows, seed, np.int32))
  return IdentifiedEmbeddings(Embeddings(branches), ids)


@pytest.fixture
def arrays(tmp_path: Path) -> Arrays:
  """The arrays of a sound file."""
  save_embeddings(tmp_path / "sound.npz", SavedEmbeddings(side(0, 3), side(1, 5)))
  with np.load(tmp_path / "sound.npz") as loaded:
    return dict(loaded)


def test_what_is_written_is_read(tmp_path: Path):
  query = side(0, 3)._replace(paths=["a.jpg", "b/ä.jpg", "c.jpg"])
  saved = SavedEmbeddings(query, side(1, 5), '{"step": 7}')
  save_embeddings(tmp_path / "a.npz", saved)
  read = load_embeddings(tmp_path / "a.npz")
  assert read.provenance == saved.provenance
  for ours, theirs in zip(read[:2], saved[:2], strict=True):
    assert list(ours.embeddings.branches) == ["global", "fusion"]
    for name, vectors in theirs.embeddings.branches.items():
      np.testing.assert_array_equal(ours.embeddings.branches[name], vectors)
    np.testing.assert_array_equal(ours.identities, theirs.identities)
    assert ours.paths == theirs.paths


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8])
def test_other_types_of_numbers_are_converted(tmp_path: Path, arrays: Arrays, dtype: type):
  values = np.arange(1, 13).reshape(3, 4)
  arrays |= {"query/branch/global": values.astype(dtype)}
  arrays |= {"query/person_id": arrays["query/person_id"].astype(np.uint64)}
  np.savez_compressed(tmp_path / "a.npz", **arrays)
  query = load_embeddings(tmp_path / "a.npz").query
  assert query.embeddings.branches["global"].dtype == np.float32
  np.testing.assert_array_equal(query.embeddings.branches["global"], values)
  assert query.identities.person_id.dtype == np.int32


@pytest.mark.parametrize(
  "names", [("qf", "q_pids", "q_camids"), ("query_f", "query_label", "query_cam")]
)
@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_other_toolboxes_names_are_known(tmp_path: Path, names: tuple[str, str, str], suffix: str):
  sides = {"q": side(0, 3), "g": side(1, 5)}
  arrays = {}
  for letter, (embeddings, who, _) in sides.items():
    values = embeddings.branches["global"], who.person_id, who.camera_id
    for name, array in zip(names, values):
      name = name.replace("query", "gallery") if letter == "g" else name
      arrays[letter + name[1:] if name[0] == "q" else name] = array
  path = tmp_path / f"theirs{suffix}"
  scipy.io.savemat(path, arrays) if suffix == ".mat" else np.savez(path, **arrays)
  read = load_embeddings(path)
  for ours, theirs in zip(read[:2], sides.values(), strict=True):
    assert list(ours.embeddings.branches) == ["features"]
    vectors = theirs.embeddings.branches["global"]
    np.testing.assert_array_equal(ours.embeddings.branches["features"], vectors)
    np.testing.assert_array_equal(ours.identities, theirs.identities)


def change(name: str, index: tuple, value: float) -> Callable[[Arrays], None]:
  def apply(arrays: Arrays) -> None:
    arrays[name] = arrays[name].astype(np.float64 if "branch" in name else np.int64)
    arrays[name][index] = value

  return apply


def put(name: str, value: object) -> Callable[[Arrays], None]:
  return lambda arrays: arrays.update({name: np.asarray(value)})


GALLERY = "gallery/branch/global"


@pytest.mark.parametrize(
  ("break_it", "message"),
  [
    (change(GALLERY, (2,), 0), f"{GALLERY}: row 2 is zero, so it has no direction (1 of 5"),
    (change(GALLERY, (slice(3),), 1e-30), f"{GALLERY}: row 0 is zero, so it has no direction (3"),
    (change(GALLERY, (4, 1), np.nan), f"{GALLERY}: row 4 has a NaN or an infinity (1 of 5"),
    (change(GALLERY, (1, 1), -np.inf), f"{GALLERY}: row 1 has a NaN or an infinity (1 of 5"),
    (change(GALLERY, (1, 1), 1e300), f"{GALLERY}: row 1 is too long for float32 (1 of 5"),
    (put(GALLERY, np.ones(5)), f"{GALLERY}: a row of numbers for each image is wanted, [N, D]"),
    (put(GALLERY, np.ones((5, 2, 2))), "got float64 of shape (5, 2, 2)"),
    (put(GALLERY, np.ones((5, 4)) > 0), "got bool of shape (5, 4)"),
    (put(GALLERY, [["a"] * 4] * 5), "got <U1 of shape (5, 4)"),
    (put(GALLERY, np.ones((5, 0))), f"{GALLERY}: it is empty, of shape (5, 0)"),
    (put(GALLERY, np.ones((4, 4))), "there are {'global': 4, 'fusion': 5}"),
    (put(GALLERY, np.ones((5, 6))), "{'global': 4, 'fusion': 3}, the gallery {'global': 6, 'fus"),
    (lambda arrays: arrays.pop(GALLERY), "the gallery {'fusion': 3}"),
    (
      lambda arrays: [arrays.pop(name) for name in list(arrays) if "query/" in name],
      "query/branch/NAME, query/person_id, query/camera_id is missing; it has gallery/branch",
    ),
    (lambda arrays: arrays.pop("gallery/camera_id"), "gallery/camera_id is missing; it has query"),
    (lambda arrays: arrays.clear(), "it has nothing, and docs/evaluation.md says"),
    (put("query/person_id", [1, 2]), "query/person_id: one whole number for each of the 3 rows"),
    (put("query/person_id", [1.0, 2.0, 3.0]), "got float64 of shape (3,)"),
    (change("query/person_id", (1,), 2**32), "query/person_id: 4294967296 in row 1 is beyond"),
    (put("query/camera_id", [["1"]]), "query/camera_id: one whole number for each"),
    (put("query/path", ["a.jpg"]), "query/path: the path of each of the 3 rows is wanted"),
    (put("query/path", [1, 2, 3]), "got int64 of shape (3,); leave it out where"),
  ],
)
def test_what_cannot_be_ranked_is_one_line(
  tmp_path: Path, arrays: Arrays, break_it: Callable[[Arrays], None], message: str
):
  break_it(arrays)
  np.savez(tmp_path / "own.npz", **arrays)
  with pytest.raises(EmbeddingsFileError) as caught:
    load_embeddings(tmp_path / "own.npz")
  assert str(caught.value).startswith(f"{tmp_path / 'own.npz'}: ")
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "not an .npz or .mat file of plain arrays"),
    (b"words", "not an .npz or .mat file of plain arrays"),
    (b"PK\x03\x04" + bytes(200), "not an .npz or .mat file of plain arrays"),
    (None, "cannot be read: No such file or directory"),
  ],
)
def test_other_files_are_one_line(tmp_path: Path, content: bytes | None, message: str):
  path = tmp_path / "own.npz"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(EmbeddingsFileError, match=message) as caught:
    load_embeddings(path)
  assert "\n" not in str(caught.value)


def test_a_single_array_and_a_folder_are_named(tmp_path: Path):
  np.save(tmp_path / "own.npy", np.ones((3, 4)))
  with pytest.raises(EmbeddingsFileError, match=r"own\.npy: a single array \(\.npy\); an \.npz of"):
    load_embeddings(tmp_path / "own.npy")
  with pytest.raises(EmbeddingsFileError, match="cannot be read: Is a directory"):
    load_embeddings(tmp_path)


def test_arrays_of_python_objects_are_not_unpickled(tmp_path: Path, arrays: Arrays):
  arrays["query/person_id"] = np.array([1, None, "x"], object)
  np.savez(tmp_path / "own.npz", **arrays)
  with pytest.raises(EmbeddingsFileError, match=r"not an \.npz or \.mat file of plain arrays"):
    load_embeddings(tmp_path / "own.npz")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short(tmp_path: Path, arrays: Arrays, share: float):
  path = tmp_path / "own.npz"
  np.savez_compressed(path, **arrays)
  data = path.read_bytes()
  path.write_bytes(data[: int(share * len(data))])
  with pytest.raises(EmbeddingsFileError, match=r"own\.npz: "):
    load_embeddings(path)


def test_no_changed_bit_is_an_error_of_another_kind(tmp_path: Path, arrays: Arrays):
  path, random = tmp_path / "own.npz", np.random.default_rng(0)
  np.savez_compressed(path, **arrays)
  data = path.read_bytes()
  for place in random.integers(len(data), size=200):
    changed = bytearray(data)
    changed[place] ^= 1 << int(random.integers(8))
    path.write_bytes(changed)
    with contextlib.suppress(EmbeddingsFileError):
      load_embeddings(path)
