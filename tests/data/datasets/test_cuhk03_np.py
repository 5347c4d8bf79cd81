"""The user's CUHK03-NP folder: read as it is, and refused with one clear error when damaged."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from magnifier_jax.data import dataset
from magnifier_jax.data.records import SourceError, SourceMissingError
from tests.data.noise_tree import FOLDERS, SIZE_HW, image_file, part_label_file, write_tree


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_records_are_the_users_files_in_the_order_of_their_names(make_config, tmp_path, suffix):
  write_tree(tmp_path, train_images=(3, 2), suffix=suffix)
  data = dataset.load(make_config().data)
  assert [len(data.train), len(data.query), len(data.gallery)] == [5, 2, 4]
  names = [f"0010_c1_0{suffix}", f"0010_c1_2{suffix}", f"0010_c2_1{suffix}"]
  names += [f"0013_c1_0{suffix}", f"0013_c2_1{suffix}"]
  assert list(data.train.path) == [f"bounding_box_train/{name}" for name in names]
  for i, path in enumerate(data.train.path):
    image = tmp_path / "cuhk03-np" / "labeled" / path
    labels = tmp_path / "cuhk03-np_ps_label" / "labeled" / path
    expected = image.read_bytes(), labels.with_suffix(".png").read_bytes()
    assert data.train.encoded(i) == expected


def test_training_ids_are_relabelled_and_test_ids_are_not(make_config, tmp_path):
  write_tree(tmp_path, train_images=(3, 2), test_people=2)
  data = dataset.load(make_config().data)
  assert data.train.person_id.tolist() == [0, 0, 0, 1, 1]
  assert data.train_person_ids.tolist() == [10, 13]
  assert data.train.camera_id.tolist() == [1, 1, 2, 1, 2]
  assert data.gallery.person_id.tolist() == [1, 1, 2, 2]
  assert data.train.person_id.dtype == data.gallery.camera_id.dtype == np.int32


def test_stray_files_are_ignored(make_config, tmp_path):
  write_tree(tmp_path)
  for name in ("Thumbs.db", ".DS_Store", "._0010_c1_0.png", "readme.txt"):
    (image_file(tmp_path).parent / name).write_bytes(b"not an image")
  assert len(dataset.load(make_config().data).train) == 5


@pytest.mark.parametrize("place", ["segmentation/cuhk03-np", "cuhk03-np/segmentation"])
def test_arrays_of_part_labels_are_read(make_config, tmp_path, place):
  write_tree(tmp_path)
  expected = np.asarray(Image.open(part_label_file(tmp_path)))
  for file in (tmp_path / "cuhk03-np_ps_label").rglob("*.png"):
    array = tmp_path / place / file.relative_to(tmp_path / "cuhk03-np_ps_label")
    array.parent.mkdir(parents=True, exist_ok=True)
    np.save(f"{array}.npy", np.asarray(Image.open(file)).astype(np.int64))
  shutil.rmtree(tmp_path / "cuhk03-np_ps_label")
  stored = dataset.load(make_config().data).train.encoded(0).part_labels
  np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored))), expected)


def test_part_labels_with_a_palette_keep_their_indices(make_config, tmp_path):
  write_tree(tmp_path)
  file = part_label_file(tmp_path)
  labels = Image.open(file)
  expected = np.asarray(labels)
  labels.putpalette(list(range(255, -1, -1)) * 3)
  labels.save(file)
  assert Image.open(file).mode == "P"
  stored = Image.open(io.BytesIO(dataset.load(make_config().data).train.encoded(0).part_labels))
  assert stored.mode == "L"
  np.testing.assert_array_equal(np.asarray(stored), expected)


@pytest.mark.parametrize("split", ["train", "query", "gallery"])
def test_a_missing_folder_is_named_with_what_belongs_there(make_config, tmp_path, split):
  write_tree(tmp_path)
  folder = image_file(tmp_path, split).parent
  shutil.rmtree(folder)
  with pytest.raises(SourceMissingError, match=r"no such folder.*0001_c1_1.*manual_dir") as error:
    dataset.load(make_config().data)
  assert str(error.value).startswith(str(folder))


def test_an_empty_folder_is_named(make_config, tmp_path):
  write_tree(tmp_path)
  folder = image_file(tmp_path, "query").parent
  for file in folder.iterdir():
    file.rename(file.with_suffix(".db"))
  with pytest.raises(SourceMissingError, match="no images there") as error:
    dataset.load(make_config().data)
  assert str(error.value).startswith(str(folder))


def _truncate(file):
  file.write_bytes(file.read_bytes()[:-200])


def _save(labels):
  return lambda file: Image.fromarray(labels).save(file)


@pytest.mark.parametrize(
  ("pick", "damage", "message"),
  [
    (image_file, _truncate, "truncated or unreadable image"),
    (image_file, lambda file: file.write_bytes(b"hello"), "truncated or unreadable image"),
    (image_file, lambda file: Image.open(file).save(file, "BMP"), "JPEG or PNG"),
    (part_label_file, lambda file: file.unlink(), "part labels missing"),
    (part_label_file, _truncate, "truncated or unreadable part-label"),
    (part_label_file, _save(np.full((SIZE_HW[0], 9), 3, np.uint8)), "48 × 9 but .* 48 × 20"),
    (part_label_file, _save(np.full(SIZE_HW, 8, np.uint8)), "part label 8 found"),
    (part_label_file, _save(np.zeros((*SIZE_HW, 3), np.uint8)), "one channel"),
  ],
)
def test_a_damaged_file_is_named_and_nothing_is_prepared(
  make_config, tmp_path, pick, damage, message
):
  write_tree(tmp_path, suffix=".png")
  file = pick(tmp_path)
  damage(file)
  with pytest.raises(SourceError, match=message) as error:
    dataset.load(make_config().data)
  assert file.name in str(error.value)
  shutil.rmtree(tmp_path / "cuhk03-np")
  with pytest.raises(SourceMissingError):  # so the first attempt left nothing to open
    dataset.load(make_config().data)


def test_truncated_jpeg_is_refused(make_config, tmp_path):
  write_tree(tmp_path, suffix=".jpg")
  _truncate(image_file(tmp_path, "gallery"))
  with pytest.raises(SourceError, match=f"{FOLDERS['gallery']}.*truncated"):
    dataset.load(make_config().data)


def test_an_image_without_person_and_camera_in_its_name_is_refused(make_config, tmp_path):
  write_tree(tmp_path)
  for pick in (image_file, part_label_file):
    pick(tmp_path).rename(pick(tmp_path).with_name("0010-1.png"))
  with pytest.raises(SourceError, match=r"0010-1.png.*person_ccamera"):
    dataset.load(make_config().data)
