"""`cuhk-03.mat` gives the records that the folders of CUHK03-NP give."""

import io
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from magnifier_jax.data import dataset
from magnifier_jax.data.dataset import ReidDataset
from magnifier_jax.data.datasets import cuhk03_mat
from magnifier_jax.data.datasets.split_folders import SPLIT_FOLDERS
from magnifier_jax.data.records import SPLITS, SourceError
from tests.data.noise_tree import write_images

# Image of cuhk-03.mat, person of the new protocol, split and its folder.
IMAGES = (
  ("1_001_1_01.png", 1, "train", "bounding_box_train"),
  ("1_001_2_06.png", 1, "train", "bounding_box_train"),
  ("1_002_1_02.png", 2, "gallery", "bounding_box_test"),
  ("1_002_1_03.png", 2, "query", "query"),
  ("1_002_2_10.png", 2, "gallery", "bounding_box_test"),
  ("5_001_2_07.png", 3, "train", "bounding_box_train"),
)
PEOPLE_OF_PAIRS = (2, 1, 1, 1, 1)


def _folder_path(name: str, person: int, folder: str) -> str:
  _, _, camera, number = name.removesuffix(".png").split("_")
  return f"{folder}/{person:04d}_c{camera}_{int(number)}.png"


def _write_mat(file: Path, pixels: dict[str, np.ndarray], compression: str | None = "gzip") -> None:
  """Writes images as MATLAB 7.3 does: axes reversed, tables of references, empty cells marked."""
  with h5py.File(file, "w", userblock_size=512) as mat:
    cells = mat.create_group("#refs#")
    empty = cells.create_dataset("empty", data=np.zeros(2, np.uint64))
    empty.attrs["MATLAB_empty"] = np.uint8(1)
    pairs = mat.create_dataset("labeled", (1, 5), h5py.ref_dtype)
    for pair, num_people in enumerate(PEOPLE_OF_PAIRS):
      people = cells.create_dataset(f"pair{pair}", (10, num_people), h5py.ref_dtype)
      people[...] = empty.ref
      pairs[0, pair] = people.ref
    for name, image in pixels.items():
      pair, person, _, number = map(int, name.removesuffix(".png").split("_"))
      cell = cells.create_dataset(name, data=image.transpose(2, 1, 0), compression=compression)
      mat[pairs[0, pair - 1]][number - 1, person - 1] = cell.ref


def _write_protocol(file: Path, **changes: np.ndarray) -> None:
  names = np.empty((len(IMAGES), 1), object)
  names[:, 0] = [np.array([name]) for name, *_ in IMAGES]
  rows = {
    f"{split}_idx": np.array([[i + 1] for i, image in enumerate(IMAGES) if image[2] == split])
    for split in ("train", "query", "gallery")
  }
  labels = np.array([[person] for _, person, _, _ in IMAGES], np.uint16)
  cameras = np.array([[int(name.split("_")[2])] for name, *_ in IMAGES], np.uint8)
  protocol = {"filelist": names, "labels": labels, "camId": cameras, **rows, **changes}
  scipy.io.savemat(file, protocol)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
  """Data in the layout of CUHK03-NP."""
  paths = [_folder_path(name, person, folder) for name, person, _, folder in IMAGES]
  root = tmp_path / "folders"
  write_images(root / "cuhk03-np" / "labeled", paths, root / "cuhk03-np_ps_label" / "labeled")
  return root


@pytest.fixture
def mat_file(tmp_path: Path, folders: Path) -> Path:
  """The same data as published."""
  root = tmp_path / "mat"
  shutil.copytree(folders / "cuhk03-np_ps_label", root / "cuhk03-np_ps_label")
  pixels = {
    name: np.asarray(
      Image.open(folders / "cuhk03-np" / "labeled" / _folder_path(name, person, folder))
    )
    for name, person, _, folder in IMAGES
  }
  _write_mat(root / "cuhk-03.mat", pixels)
  _write_protocol(root / "cuhk03_new_protocol_config_labeled.mat")
  return root / "cuhk-03.mat"


def _load(make_config, root: Path) -> ReidDataset:
  config = make_config(data__manual_dir=str(root), data__data_dir=str(root / "prepared"))
  return dataset.load(config.data)


def test_the_mat_file_gives_the_records_of_the_folders(make_config, folders, mat_file):
  from_folders, from_mat = _load(make_config, folders), _load(make_config, mat_file.parent)
  for name in SPLITS:
    expected, split = getattr(from_folders, name), getattr(from_mat, name)
    assert list(split.path) == list(expected.path)
    np.testing.assert_array_equal(split.person_id, expected.person_id)
    np.testing.assert_array_equal(split.camera_id, expected.camera_id)
    for i in range(len(split)):
      assert split.encoded(i).part_labels == expected.encoded(i).part_labels
      images = [Image.open(io.BytesIO(s.encoded(i).image)) for s in (split, expected)]
      np.testing.assert_array_equal(*map(np.asarray, images))
  assert from_mat.train.person_id.tolist() == [0, 0, 1]
  assert list(from_mat.query.path) == ["query/0002_c1_3.png"]


def test_the_file_of_the_release_is_found_in_its_folder(make_config, mat_file):
  root = mat_file.parent
  (root / "cuhk03_release").mkdir()
  mat_file.rename(root / "cuhk03_release" / mat_file.name)
  assert len(_load(make_config, root).train) == 3


def test_an_image_that_is_not_there_is_named(make_config, mat_file):
  with h5py.File(mat_file, "r+") as mat:
    people = mat[mat["labeled"][0, 0]]
    people[5, 0] = mat["#refs#/empty"].ref
  with pytest.raises(SourceError, match="labeled, pair 1, person 1, image 6: no image there"):
    _load(make_config, mat_file.parent)


def test_a_truncated_mat_file_is_named(make_config, mat_file):
  mat_file.write_bytes(mat_file.read_bytes()[:3000])
  with pytest.raises(SourceError, match="cannot be read") as error:
    _load(make_config, mat_file.parent)
  assert str(error.value).startswith(str(mat_file))


def test_a_missing_protocol_is_named(make_config, mat_file):
  protocol = mat_file.with_name("cuhk03_new_protocol_config_labeled.mat")
  protocol.unlink()
  with pytest.raises(SourceError, match="no such file") as error:
    _load(make_config, mat_file.parent)
  assert str(error.value).startswith(str(protocol))


@pytest.mark.parametrize(
  "changes",
  [
    {"camId": np.full((6, 1), 2)},
    {"train_idx": np.array([[7]])},
    {"train_idx": np.array([[0]])},  # of MATLAB, so it is none
    {"filelist": np.array([["a.png"]] * 6, object)},
  ],
)
def test_a_damaged_protocol_is_named(make_config, mat_file, changes):
  protocol = mat_file.with_name("cuhk03_new_protocol_config_labeled.mat")
  _write_protocol(protocol, **changes)
  with pytest.raises(SourceError, match="not a readable file of CUHK03's new protocol") as error:
    _load(make_config, mat_file.parent)
  assert str(error.value).startswith(str(protocol))


@pytest.mark.parametrize("person", [2**31, 2**32 + 1, 2**63 + 1])
def test_a_person_that_int32_cannot_hold_is_named(make_config, mat_file, person):
  people = np.array([[1]] * 5 + [[person]], np.uint64)
  _write_protocol(mat_file.with_name("cuhk03_new_protocol_config_labeled.mat"), labels=people)
  config = make_config(
    data__manual_dir=str(mat_file.parent), data__missing_part_labels="background"
  ).data
  with pytest.raises(SourceError, match=f"pair 5, person 1, image 7: person {person} is too large"):
    dataset.load(config)


@pytest.mark.parametrize(
  ("boxes", "counts"), [("labeled", (7_368, 1_400, 5_328)), ("detected", (7_365, 1_400, 5_332))]
)
def test_the_published_protocol_has_the_published_counts(tmp_path, protocols, boxes, counts):
  name = f"cuhk03_new_protocol_config_{boxes}.mat"
  shutil.copy(protocols / name, tmp_path / name)
  splits = [cuhk03_mat.read_protocol(tmp_path / "cuhk-03.mat", boxes, split) for split in SPLITS]
  assert tuple(map(len, splits)) == counts
  assert [len({image.person_id for image in split}) for split in splits] == [767, 700, 700]
  assert len({image.name for split in splits for image in split}) == sum(counts)
  assert len({image.cell for split in splits for image in split}) == sum(counts)


def test_real_folders_have_the_names_that_the_protocol_gives(tmp_path, protocols, real_data):
  name = "cuhk03_new_protocol_config_labeled.mat"
  shutil.copy(protocols / name, tmp_path / name)
  for split, folder in SPLIT_FOLDERS.items():
    images = cuhk03_mat.read_protocol(tmp_path / "cuhk-03.mat", "labeled", split)
    first_pair = {Path(image.name).stem for image in images if image.cell.pair == 1}
    files = (real_data / "cuhk03-np" / "labeled" / folder).iterdir()
    assert {file.stem for file in files} == first_pair


def test_a_mat_file_of_the_same_size_is_read_anew(make_config, mat_file):
  # Stored plainly, so that other pixels are as many bytes.
  pixels = {
    name: np.full((48, 20, 3), 100 + number, np.uint8) for number, (name, *_) in enumerate(IMAGES)
  }
  _write_mat(mat_file, pixels, compression=None)
  size = mat_file.stat().st_size
  first = _load(make_config, mat_file.parent)
  pixels[IMAGES[0][0]] = np.full((48, 20, 3), 7, np.uint8)
  new = mat_file.with_name("new.mat")
  _write_mat(new, pixels, compression=None)
  new.replace(mat_file)
  assert mat_file.stat().st_size == size
  second = _load(make_config, mat_file.parent)
  images = [
    np.asarray(Image.open(io.BytesIO(data.train.encoded(0).image)))[0, 0, 0]
    for data in (first, second)
  ]
  assert images == [100, 7]
