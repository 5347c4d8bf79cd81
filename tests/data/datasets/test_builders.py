"""Market-1501, Duke, MSMT17 and people's own images, as they lie on people's disks."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magnifier_jax.config import ConfigError
from magnifier_jax.data import dataset
from magnifier_jax.data.dataset import ReidSplit
from magnifier_jax.data.records import SourceError, SourceMissingError
from tests.data.noise_tree import SIZE_HW, write_images

MARKET = (
  "bounding_box_train/0002_c1s1_000451_03.jpg",
  "bounding_box_train/0002_c2s1_000301_01.JPG",
  "bounding_box_train/0007_c3s3_077419_03.png",
  "bounding_box_train/0007_c6s1_010001_00.jpeg",
  "query/0001_c1s1_001051_00.jpg",
  "query/1501_c6s4_001902_00.jpg",
  "bounding_box_test/-1_c1s1_000401_03.jpg",
  "bounding_box_test/0000_c4s1_000151_01.jpg",
  "bounding_box_test/0001_c2s1_000976_01.jpg.jpg",
  "bounding_box_test/1501_c1s6_016346_02.jpg",
)
DUKE = (
  "bounding_box_train/0001_c2_f0046302.jpg",
  "bounding_box_train/0001_c8_f0046422.jpg",
  "query/0005_c2_f0046985.jpg",
  "bounding_box_test/0005_c5_f0051341.jpg",
  "bounding_box_test/7139_c2_f0160857.jpg",
)
MSMT17_LISTS = {
  "train": (
    "0000/0000_000_01_0303morning_0008_0.jpg 0",
    "0000/0000_001_15_0303morning_0009_0.jpg 0",
    "0001/0001_000_05_0303noon_0020_1.jpg 1",
  ),
  "val": ("0001/0001_001_14_0303noon_0021_0_ex.jpg 1",),
  "query": ("0000/0000_000_01_0303afternoon_0001_0.jpg 0",),
  "gallery": (
    "0000/0000_002_07_0303afternoon_0003_0.jpg 0",
    "3059/3059_003_11_0303afternoon_0004_1.jpg 3059",
  ),
}


def _strew(root: Path, folders: tuple[str, ...]) -> None:
  """Leaves what computers and people leave in folders of images."""
  for folder in folders:
    for name in ("Thumbs.db", ".DS_Store", "._0002_c1s1_000451_03.jpg", "readme.txt"):
      (root / folder / name).write_bytes(b"not an image")
    (root / folder / "copy" / "0002_c9s1_000451_03.jpg").mkdir(parents=True)
    (root / folder / "0003_c1s1_000001_00.jpg").mkdir()


def _records(split: ReidSplit) -> list[tuple[str, int, int]]:
  return list(zip(split.path, split.person_id.tolist(), split.camera_id.tolist()))


@pytest.mark.parametrize("folder", ["Market-1501-v15.09.15", "market1501"])
def test_market1501(make_config, tmp_path, folder):
  write_images(tmp_path / folder, MARKET, tmp_path / f"{folder}_ps_label")
  _strew(tmp_path / folder, ("bounding_box_train", "query", "bounding_box_test"))
  data = dataset.load(make_config(data__dataset="market1501").data)
  assert _records(data.train) == [
    (MARKET[0], 0, 1), (MARKET[1], 0, 2), (MARKET[2], 1, 3), (MARKET[3], 1, 6)
  ]  # fmt: skip
  assert data.train_person_ids.tolist() == [2, 7]
  assert _records(data.query) == [(MARKET[4], 1, 1), (MARKET[5], 1501, 6)]
  gallery = [(MARKET[6], -1, 1), (MARKET[7], 0, 4), (MARKET[8], 1, 2), (MARKET[9], 1501, 1)]
  assert _records(data.gallery) == gallery


def test_stored_files_are_the_users(make_config, tmp_path):
  labels = tmp_path / "Market-1501-v15.09.15_ps_label"
  write_images(tmp_path / "Market-1501-v15.09.15", MARKET, labels)
  train = dataset.load(make_config(data__dataset="market1501").data).train
  for i, path in enumerate(train.path):
    image = tmp_path / "Market-1501-v15.09.15" / path
    expected = image.read_bytes(), (labels / path).with_suffix(".png").read_bytes()
    assert train.encoded(i) == expected


@pytest.mark.parametrize(
  ("name", "folder"),
  [
    ("dukemtmc_reid", "DukeMTMC-reID"),
    ("dukemtmc_reid", "dukemtmc-reid/DukeMTMC-reID"),
    ("occluded_duke", "Occluded_Duke"),
  ],
)
def test_duke(make_config, tmp_path, name, folder):
  root = tmp_path / folder
  write_images(root, DUKE, root.with_name(f"{root.name}_ps_label"))
  _strew(root, ("bounding_box_train", "query", "bounding_box_test"))
  data = dataset.load(make_config(data__dataset=name).data)
  assert _records(data.train) == [(DUKE[0], 0, 2), (DUKE[1], 0, 8)]
  assert _records(data.query) == [(DUKE[2], 5, 2)]
  assert _records(data.gallery) == [(DUKE[3], 5, 5), (DUKE[4], 7139, 2)]


def _write_msmt17(root: Path, train_folder: str, test_folder: str) -> None:
  for split, lines in MSMT17_LISTS.items():
    folder = train_folder if split in ("train", "val") else test_folder
    images = [f"{folder}/{line.split()[0]}" for line in lines]
    write_images(root, images, root.with_name(f"{root.name}_ps_label"))
    (root / f"list_{split}.txt").write_text("\n".join(lines) + "\n\n")
  (root / train_folder / "0000" / "Thumbs.db").write_bytes(b"not an image")


@pytest.mark.parametrize(
  ("variant", "root", "train_folder", "test_folder"),
  [
    ("v1", "MSMT17_V1", "train", "test"),
    ("v2", "MSMT17_V2", "mask_train_v2", "mask_test_v2"),
  ],
)
def test_msmt17(make_config, tmp_path, variant, root, train_folder, test_folder):
  _write_msmt17(tmp_path / root, train_folder, test_folder)
  data = dataset.load(make_config(data__dataset=f"msmt17/{variant}").data)
  assert [person_and_camera for _, *person_and_camera in _records(data.train)] == [
    [0, 1], [0, 15], [1, 5]
  ]  # fmt: skip
  assert data.train.path[0] == f"{train_folder}/0000/0000_000_01_0303morning_0008_0.jpg"
  assert [who for _, *who in _records(data.query)] == [[0, 1]]
  assert [who for _, *who in _records(data.gallery)] == [[0, 7], [3059, 11]]
  both = dataset.load(make_config(data__dataset=f"msmt17/{variant}_trainval").data)
  assert [who for _, *who in _records(both.train)] == [[0, 1], [0, 15], [1, 5], [1, 14]]


def test_a_damaged_list_of_msmt17_is_named_with_its_line(make_config, tmp_path):
  _write_msmt17(tmp_path / "MSMT17_V1", "train", "test")
  with (tmp_path / "MSMT17_V1" / "list_query.txt").open("a") as file:
    file.write("0000/0000_000_01_0303afternoon_0001_0.jpg\n")
  with pytest.raises(SourceError, match=r"list_query.txt: line 2 is not 'path person'"):
    dataset.load(make_config(data__dataset="msmt17/v1").data)


def test_an_image_that_a_list_names_in_vain_is_named(make_config, tmp_path):
  _write_msmt17(tmp_path / "MSMT17_V1", "train", "test")
  image = tmp_path / "MSMT17_V1" / "test" / MSMT17_LISTS["gallery"][0].split()[0]
  image.unlink()
  with pytest.raises(SourceError, match="cannot be read") as error:
    dataset.load(make_config(data__dataset="msmt17/v1").data)
  assert str(error.value).startswith(str(image))


@pytest.mark.parametrize(
  "name", ["market1501", "dukemtmc_reid", "occluded_duke", "msmt17/v2", "image_list/mine"]
)
def test_a_missing_data_set_is_named_with_what_belongs_there(make_config, tmp_path, name):
  with pytest.raises(SourceMissingError, match=r"config\.data\.manual_dir is the folder") as error:
    dataset.load(make_config(data__dataset=name).data)
  assert str(error.value).startswith(str(tmp_path))


OWN_TABLE = """\
image,person,camera,split,remark
shop/a.jpg,5,c1,train,
shop/b.PNG,5,2,train,seen twice
shop/junk.jpg,-1,2,train,nobody
door/q.jpg,9,1,query,
door/g.jpg,9,3,gallery,
door/d.jpg,0,3,gallery,a passer-by
"""


def test_a_table_of_the_users(make_config, tmp_path):
  root = tmp_path / "mine"
  rows = [line.split(",") for line in OWN_TABLE.splitlines()[1:]]
  write_images(root, [row[0] for row in rows], tmp_path / "mine_ps_label")
  (root / "images.csv").write_text("\ufeff" + OWN_TABLE, encoding="utf-8")
  data = dataset.load(make_config(data__dataset="image_list/mine").data)
  assert _records(data.train) == [("shop/a.jpg", 0, 1), ("shop/b.PNG", 0, 2)]
  assert data.train_person_ids.tolist() == [5]
  assert _records(data.query) == [("door/q.jpg", 9, 1)]
  assert _records(data.gallery) == [("door/g.jpg", 9, 3), ("door/d.jpg", 0, 3)]


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    ("person,", "who,", "column 'person' missing; the columns are image, person, split"),
    ("5,c1,train", "5,c1,training", "line 2: split 'training' is none of train, query, gallery"),
    ("5,2,train", "five,2,train", "line 3: person 'five' and camera '2' must be whole numbers"),
    ("9,1,query", "9,1,gallery", "no row has the split query"),
    ("shop/b.PNG", "shop/a.jpg", "image 'shop/a.jpg' is listed twice"),
  ],
)
def test_a_wrong_table_is_named_with_its_line(make_config, tmp_path, old, new, message):
  (tmp_path / "mine").mkdir()
  assert old in OWN_TABLE
  (tmp_path / "mine" / "images.csv").write_text(OWN_TABLE.replace(old, new))
  with pytest.raises(SourceError, match=message) as error:
    dataset.load(make_config(data__dataset="image_list/mine").data)
  assert str(error.value).startswith(str(tmp_path / "mine" / "images.csv"))


@pytest.mark.parametrize(
  "splits", [("train", "query", "gallery"), ("bounding_box_train", "query", "bounding_box_test")]
)
def test_folders_of_the_users(make_config, tmp_path, splits):
  train, query, gallery = splits
  images = [f"{train}/monday/0003_c1_1.jpg", f"{train}/0003_c12x.png", f"{query}/0004_c1.jpg"]
  images += [f"{gallery}/a/b/0004_c2.jpg", f"{gallery}/-1_c2.jpg"]
  write_images(tmp_path / "mine", images, tmp_path / "mine_ps_label")
  (tmp_path / "mine" / train / "Thumbs.db").write_bytes(b"not an image")
  data = dataset.load(make_config(data__dataset="image_list/mine").data)
  assert _records(data.train) == [(images[1], 0, 12), (images[0], 0, 1)]
  assert _records(data.query) == [(images[2], 4, 1)]
  assert _records(data.gallery) == [(images[4], -1, 2), (images[3], 4, 2)]


def test_two_data_sets_of_a_user_have_two_prepared_copies(make_config, tmp_path):
  for name, images in (("one", 1), ("two", 2)):
    files = [f"train/0001_c1_{i}.png" for i in range(images)]
    files += ["query/0002_c1_1.png", "gallery/0002_c2_1.png"]
    write_images(tmp_path / name, files, tmp_path / f"{name}_ps_label")
  configs = [make_config(data__dataset=f"image_list/{name}") for name in ("one", "two", "one")]
  assert [len(dataset.load(config.data).train) for config in configs] == [1, 2, 1]
  copies = {folder.name for folder in (tmp_path / "prepared").iterdir()}
  assert copies >= {"image_list_one", "image_list_two"}


_NO_NAMES = ("image_list", "image_list/", "image_list/a/b", "image_list/..", "market1501/x")


@pytest.mark.parametrize("name", _NO_NAMES)
def test_a_name_that_no_data_set_can_have_is_refused(make_config, name):
  with pytest.raises(ConfigError, match=r"choose from .*image_list/NAME"):
    dataset.load(make_config(data__dataset=name).data)


def _labels(split: ReidSplit, index: int) -> np.ndarray:
  return np.asarray(Image.open(io.BytesIO(split.encoded(index).part_labels)))


def test_missing_part_labels_are_counted_and_refused(make_config, tmp_path):
  root = tmp_path / "DukeMTMC-reID"
  write_images(root, DUKE)
  with pytest.raises(SourceError, match=r"for 2 of 2 images.*missing_part_labels") as error:
    dataset.load(make_config(data__dataset="dukemtmc_reid").data)
  assert str(error.value).startswith(str(root / DUKE[0]))
  assert str(tmp_path / "DukeMTMC-reID_ps_label" / DUKE[0])[:-4] + ".png" in str(error.value)


def test_missing_part_labels_become_background_or_bands(make_config, tmp_path):
  labels = tmp_path / "DukeMTMC-reID_ps_label"
  write_images(tmp_path / "DukeMTMC-reID", DUKE, labels)
  given = np.asarray(Image.open((labels / DUKE[1]).with_suffix(".png")))
  (labels / DUKE[0]).with_suffix(".png").unlink()
  config = {"data__dataset": "dukemtmc_reid"}
  train = dataset.load(make_config(**config, data__missing_part_labels="background").data).train
  np.testing.assert_array_equal(_labels(train, 0), np.zeros(SIZE_HW))
  np.testing.assert_array_equal(_labels(train, 1), given)
  train = dataset.load(make_config(**config, data__missing_part_labels="bands").data).train
  bands = _labels(train, 0)
  assert bands.shape == SIZE_HW
  assert (bands == bands[:, :1]).all()
  assert (np.diff(bands[:, 0].astype(int)) >= 0).all()
  sizes = np.bincount(bands[:, 0], minlength=8)
  assert sizes[0] == 0
  assert set(sizes[1:]) <= {SIZE_HW[0] // 7, SIZE_HW[0] // 7 + 1}


def test_test_images_need_no_part_labels(make_config, tmp_path):
  labels = tmp_path / "DukeMTMC-reID_ps_label"
  write_images(tmp_path / "DukeMTMC-reID", DUKE, labels)
  shutil.rmtree(labels / "query")
  data = dataset.load(make_config(data__dataset="dukemtmc_reid").data)
  np.testing.assert_array_equal(_labels(data.query, 0), np.zeros(SIZE_HW))


def test_arrays_of_part_labels_have_the_images_name_with_its_ending(make_config, tmp_path):
  write_images(tmp_path / "DukeMTMC-reID", DUKE)
  for path in DUKE:
    file = tmp_path / "segmentation" / "DukeMTMC-reID" / f"{path}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, np.full(SIZE_HW, 3))
  train = dataset.load(make_config(data__dataset="dukemtmc_reid").data).train
  np.testing.assert_array_equal(_labels(train, 0), np.full(SIZE_HW, 3))
