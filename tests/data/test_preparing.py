"""A run reads the prepared copy of the files as they are, and nobody changes it meanwhile."""

import contextlib
import dataclasses
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from magnifier_jax.config import DataConfig
from magnifier_jax.data import dataset
from magnifier_jax.data.prepared import copies as copies_lib
from magnifier_jax.data.prepared import file_states
from magnifier_jax.data.prepared.copies import PreparedCopies, PreparedCopyError
from magnifier_jax.data.records import SPLITS, SourceError, SourceMissingError

from .noise_tree import FOLDERS, image_file, part_label_file, write_images, write_tree


@pytest.fixture
def two_folders(make_config, tmp_path) -> tuple[DataConfig, DataConfig]:
  """Configs of two folders with other pictures under the same names, and one `data_dir`."""
  write_tree(tmp_path / "a")
  write_tree(tmp_path / "b")
  for split in SPLITS:
    files = sorted((tmp_path / "b" / "cuhk03-np" / "labeled" / FOLDERS[split]).iterdir())
    for file in files:
      Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
  return tuple(
    make_config(
      data__manual_dir=str(tmp_path / name), data__data_dir=str(tmp_path / "prepared")
    ).data
    for name in "ab"
  )


def _folder(config: DataConfig) -> Path:
  return Path(config.data_dir) / "cuhk03_np" / "labeled"


def _copies(config: DataConfig) -> list[str]:
  return PreparedCopies(_folder(config)).keys()


def _users_image(config: DataConfig, split: str, path: str) -> bytes:
  return (Path(config.manual_dir) / "cuhk03-np" / "labeled" / path).read_bytes()


def _assert_reads_its_own(data: dataset.ReidDataset, config: DataConfig) -> None:
  for name in SPLITS:
    split = getattr(data, name)
    for row, path in enumerate(split.path):
      assert split.encoded(row).image == _users_image(config, name, path), (name, path)


def test_a_second_folder_does_not_change_what_the_first_run_reads(two_folders, no_preparing):
  a, b = two_folders
  data_of_a = dataset.load(a)
  data_of_a.train.encoded(0)  # the others are opened later, as a run does
  data_of_b = dataset.load(b)
  _assert_reads_its_own(data_of_b, b)
  _assert_reads_its_own(data_of_a, a)
  assert len(_copies(a)) == 2
  with no_preparing():
    _assert_reads_its_own(dataset.load(a), a)
    _assert_reads_its_own(dataset.load(b), b)


def test_changing_the_files_does_not_change_what_a_run_reads(make_config, tmp_path):
  write_tree(tmp_path)
  config = make_config().data
  running = dataset.load(config)
  expected = _users_image(config, "query", running.query.path[0])
  Image.new("RGB", (20, 48)).save(image_file(tmp_path, "query"))
  assert dataset.load(config).query.encoded(0).image != expected
  assert running.query.encoded(0).image == expected


def test_files_that_come_back_find_their_copy(make_config, tmp_path, no_preparing):
  write_tree(tmp_path)
  file = image_file(tmp_path)
  content = file.read_bytes()
  dataset.load(make_config().data)
  Image.new("RGB", (20, 48)).save(file)
  dataset.load(make_config().data)
  file.write_bytes(content)
  with no_preparing():
    assert dataset.load(make_config().data).train.encoded(0).image == content
  assert len(_copies(make_config().data)) == 2


def test_a_folder_of_the_same_contents_shares_the_copy(make_config, tmp_path, no_preparing):
  write_tree(tmp_path / "a")
  shutil.copytree(tmp_path / "a", tmp_path / "b")
  prepared = str(tmp_path / "prepared")
  configs = [
    make_config(data__manual_dir=str(tmp_path / name), data__data_dir=prepared).data
    for name in "ab"
  ]
  dataset.load(configs[0])
  with no_preparing():
    _assert_reads_its_own(dataset.load(configs[1]), configs[1])


def test_options_that_make_a_difference_have_copies_of_their_own(make_config, tmp_path):
  write_tree(tmp_path)
  choices = ("background", "bands")
  configs = [make_config(data__missing_part_labels=choice).data for choice in choices]
  assert len({dataset.prepare(config).key for config in configs}) == 1
  part_label_file(tmp_path).unlink()
  assert len({dataset.prepare(config).key for config in configs}) == 2


def _rewrite_npy(root: Path) -> None:
  np.save(root / "segmentation" / "my" / "train" / "0001_c1_0.png.npy", np.full((48, 20), 3))


def _rewrite_label(root: Path) -> None:
  file = root / "my_ps_label" / "train" / "0001_c1_1.png"
  _change_pixels(file)


def _rewrite_image(root: Path) -> None:
  _change_pixels(root / "my" / "train" / "0002_c1_0.png")


def _change_pixels(file: Path) -> None:
  """Rewrites a stored PNG with other pixels; its size stays."""
  pixels = np.asarray(Image.open(file))
  Image.fromarray(np.where(pixels == 1, 2, 1).astype(np.uint8)).save(file, compress_level=0)


def _rewrite_table(root: Path) -> None:
  table = root / "my" / "images.csv"
  table.write_text(table.read_text().replace("0002_c1_0.png,2,1", "0002_c1_0.png,1,1"))


@pytest.fixture
def own_images(make_config, tmp_path) -> DataConfig:
  """A table of images with stored PNG files, whose part labels are PNG, `.npy` or missing."""
  names = ["0001_c1_0", "0001_c1_1", "0002_c1_0"]
  images = [f"train/{name}.png" for name in names] + ["query/0003_c1.png", "gallery/0003_c2.png"]
  write_images(tmp_path / "my", images)
  rows = [
    f"{path},{int(path.split('/')[1][:4])},{path.split('_c')[1][0]},{path.split('/')[0]}"
    for path in images
  ]
  (tmp_path / "my" / "images.csv").write_text("\n".join(["image,person,camera,split", *rows]))
  arrays = tmp_path / "segmentation" / "my" / "train"
  arrays.mkdir(parents=True)
  np.save(arrays / "0001_c1_0.png.npy", np.full((48, 20), 5))
  write_images(tmp_path / "my_ps_label", ["train/0001_c1_1.png"])
  label = tmp_path / "my_ps_label" / "train" / "0001_c1_1.png"
  Image.fromarray(np.ones((48, 20), np.uint8)).save(label, compress_level=0)
  image = tmp_path / "my" / images[2]
  Image.fromarray(np.asarray(Image.open(image))).save(image, compress_level=0)
  return make_config(data__dataset="image_list/my", data__missing_part_labels="bands").data


@pytest.mark.parametrize("keep_time", [False, True], ids=["new time", "same time"])
@pytest.mark.parametrize("rewrite", [_rewrite_npy, _rewrite_label, _rewrite_image, _rewrite_table])
def test_contents_of_the_same_size_are_noticed(own_images, tmp_path, rewrite, keep_time):
  first = dataset.prepare(own_images)
  before = {file: file.stat() for file in tmp_path.rglob("*.[pnc]*") if file.is_file()}
  rewrite(tmp_path)
  for file, state in before.items():
    assert file.stat().st_size == state.st_size
    if keep_time:
      os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
  second = dataset.prepare(own_images)
  assert second.key != first.key
  assert dataset.prepare(own_images).key == second.key


def test_rewritten_labels_are_those_of_the_next_run(own_images, tmp_path):
  before = dataset.load(own_images)
  _rewrite_npy(tmp_path)
  after = dataset.load(own_images)
  assert before.train.encoded(0).part_labels != after.train.encoded(0).part_labels
  assert before.train.encoded(1) == after.train.encoded(1)


def test_touched_files_are_not_prepared_again(make_config, tmp_path, no_preparing):
  write_tree(tmp_path)
  dataset.load(make_config().data)
  for file in (tmp_path / "cuhk03-np").rglob("*.png"):
    os.utime(file, (1, 1))
  with no_preparing():
    dataset.load(make_config().data)


def test_files_with_the_same_times_are_not_read(make_config, tmp_path, monkeypatch):
  write_tree(tmp_path)
  # As if they had been written long ago.
  monkeypatch.setattr(file_states, "_TICK_NANOSECONDS", -(10**12))
  dataset.load(make_config().data)
  read = []
  monkeypatch.setattr(file_states, "digest", lambda file: read.append(file) or bytes(16))
  dataset.load(make_config().data)
  assert read == []


def test_touched_files_are_read_once(make_config, tmp_path, monkeypatch):
  write_tree(tmp_path)
  monkeypatch.setattr(file_states, "_TICK_NANOSECONDS", -(10**12))
  dataset.load(make_config().data)
  os.utime(image_file(tmp_path), (1, 1))
  read, digest = [], file_states.digest
  monkeypatch.setattr(file_states, "digest", lambda file: read.append(file) or digest(file))
  for _ in range(2):
    dataset.load(make_config().data)
  assert read == [str(image_file(tmp_path))]


def test_a_folder_that_may_not_be_written_to_serves(make_config, tmp_path, monkeypatch):
  write_tree(tmp_path)
  dataset.load(make_config().data)

  def refuse(*_, **__):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(copies_lib.tempfile, "NamedTemporaryFile", refuse)
  os.utime(image_file(tmp_path), (1, 1))
  assert len(dataset.load(make_config().data).train) == 5


_LOAD = """
import os, signal, sys, time
from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.data import dataset
from magnifier_jax.data.datasets.cuhk03_np import Cuhk03Np

read_records = Cuhk03Np.read_records

def read_slowly_or_die(self, sources):
  time.sleep(0.1)
  last = "bounding_box_test/0002_c1_2.png"
  if sys.argv[2] == "die" and any(source.image.path == last for source in sources):
    os.kill(os.getpid(), signal.SIGKILL)
  return read_records(self, sources)

Cuhk03Np.read_records = read_slowly_or_die
config = get_config("small")
config.data.manual_dir = sys.argv[1]
config.data.data_dir = sys.argv[1] + "/prepared"
print("ready", flush=True)
sys.stdin.readline()
data = dataset.load(Config.from_config_dict(config).data)
print(len(data.train), len(data.query), len(data.gallery), data.train.encoded(0).image[:4])
"""


def _process(root: Path, repository: Path, end: str) -> subprocess.Popen:
  process = subprocess.Popen(
    [sys.executable, "-c", _LOAD, str(root), end],
    cwd=repository,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "ready\n"
  return process


def test_a_copy_whose_making_was_killed_is_made_anew(make_config, tmp_path, repository):
  write_tree(tmp_path)
  process = _process(tmp_path, repository, "die")
  process.communicate("go\n")
  assert process.returncode == -9
  folder = _folder(make_config().data)
  assert list(folder.glob("preparing-*/*train*")), "it was killed before it wrote anything"
  data = dataset.load(make_config().data)
  assert [len(data.train), len(data.query), len(data.gallery)] == [5, 2, 4]
  assert {path.name for path in folder.iterdir()} == {*_copies(make_config().data), "sources"}


def test_two_processes_prepare_one_copy_and_both_read_it(make_config, tmp_path, repository):
  write_tree(tmp_path)
  processes = [_process(tmp_path, repository, "live") for _ in range(2)]
  for process in processes:
    process.stdin.write("go\n")
    process.stdin.flush()
  outputs = [process.communicate() for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert [output for output, _ in outputs] == ["5 2 4 b'\\x89PNG'\n"] * 2
  assert sum("Preparing cuhk03_np, train" in errors for _, errors in outputs) == 1
  folder = _folder(make_config().data)
  assert {path.name for path in folder.iterdir()} == {*_copies(make_config().data), "sources"}
  assert len(_copies(make_config().data)) == 1


def test_two_who_cannot_lock_each_other_out_end_with_one_copy(make_config, tmp_path, monkeypatch):
  write_tree(tmp_path)
  config = make_config().data
  write = dataset.ReidBuilder.write
  keys = []

  def write_beside_another(self, sources, folder):
    monkeypatch.setattr(dataset.ReidBuilder, "write", write)
    monkeypatch.setattr(PreparedCopies, "one_prepares", lambda *_: _nobody_waits())
    keys.append(dataset.prepare(config).key)
    return write(self, sources, folder)

  monkeypatch.setattr(dataset.ReidBuilder, "write", write_beside_another)
  keys.append(dataset.prepare(config).key)
  assert len(keys) == 2
  assert set(keys) == set(_copies(config))
  assert not PreparedCopies(_folder(config)).half_made()


@contextlib.contextmanager
def _nobody_waits():
  yield False


def test_a_failed_preparation_leaves_nothing(make_config, tmp_path):
  write_tree(tmp_path)
  image_file(tmp_path, "gallery").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
  with pytest.raises(SourceError, match=r"0001_c1_2\.png"):
    dataset.load(make_config().data)
  assert [path.name for path in _folder(make_config().data).iterdir()] == ["sources"]


def test_the_copy_of_the_folder_named_serves_without_it(two_folders, tmp_path, no_preparing):
  a, b = two_folders
  expected = {config.manual_dir: dataset.load(config).train.encoded(0) for config in (b, a)}
  shutil.rmtree(tmp_path / "a")
  shutil.rmtree(tmp_path / "b")
  with no_preparing():
    for config in (a, b):
      assert dataset.load(config).train.encoded(0) == expected[config.manual_dir]


def test_the_latest_copy_of_a_folder_serves_without_it(make_config, tmp_path):
  write_tree(tmp_path)
  dataset.load(make_config().data)
  Image.new("RGB", (20, 48)).save(image_file(tmp_path))
  expected = dataset.load(make_config().data).train.encoded(0)
  shutil.rmtree(tmp_path / "cuhk03-np")
  assert dataset.load(make_config().data).train.encoded(0) == expected


def test_of_several_copies_none_is_guessed(two_folders, tmp_path, caplog):
  a, b = two_folders
  keys = [dataset.prepare(config).key for config in (a, b)]
  elsewhere = dataclasses.replace(a, manual_dir=str(tmp_path / "elsewhere"))
  with pytest.raises(PreparedCopyError, match="holds 2 prepared copies") as error:
    dataset.load(elsewhere)
  assert all(key in str(error.value) for key in keys)
  assert str(tmp_path / "b") in str(error.value)
  PreparedCopies(_folder(a)).remove(keys[1])
  with caplog.at_level(logging.WARNING, logger="absl"):
    assert dataset.prepare(elsewhere).key == keys[0]
  assert f"made from {tmp_path / 'a'}" in caplog.text


def test_a_copy_of_other_options_does_not_serve_without_the_source(make_config, tmp_path):
  write_tree(tmp_path)
  part_label_file(tmp_path).unlink()
  dataset.load(make_config(data__missing_part_labels="bands").data)
  shutil.rmtree(tmp_path / "cuhk03-np")
  with pytest.raises(SourceMissingError):
    dataset.load(make_config(data__missing_part_labels="background").data)
  assert len(dataset.load(make_config(data__missing_part_labels="bands").data).train) == 5


def test_a_copy_that_was_damaged_is_named(make_config, tmp_path):
  write_tree(tmp_path)
  copy = dataset.prepare(make_config().data)
  (records,) = copy.folder.glob("*train*array_record*")
  records.write_bytes(records.read_bytes()[:-1])
  with pytest.raises(PreparedCopyError, match="damaged") as error:
    dataset.load(make_config().data)
  assert str(error.value).startswith(str(records))


def test_a_copy_of_an_earlier_version_is_left_alone(make_config, tmp_path):
  write_tree(tmp_path)
  old = _folder(make_config().data) / "1.0.0"
  old.mkdir(parents=True)
  (old / "source_fingerprint.json").write_text(json.dumps("0" * 64))
  assert len(dataset.load(make_config().data).train) == 5
  assert (old / "source_fingerprint.json").exists()


def test_tfds_opens_a_copy(make_config, tmp_path):
  write_tree(tmp_path)
  copy = dataset.prepare(make_config().data)
  records = tfds.builder_from_directory(copy.folder).as_data_source("gallery")
  names = ("0001_c1_2", "0001_c2_1", "0002_c1_2", "0002_c2_1")
  paths = [f"bounding_box_test/{name}.png" for name in names]
  assert [record["path"].decode() for record in records] == paths
  file = tmp_path / "cuhk03-np" / "labeled" / paths[0]
  np.testing.assert_array_equal(records[0]["image"], np.asarray(Image.open(file)))


def test_a_copy_is_removed_only_when_nobody_reads_it(make_config, tmp_path, repository):
  write_tree(tmp_path)
  data = dataset.load(make_config().data)
  (key,) = _copies(make_config().data)
  copies = PreparedCopies(_folder(make_config().data))
  held_back = data.train.subset("some", np.arange(5) < 2)
  del data
  with pytest.raises(PreparedCopyError, match="a running process uses this copy"):
    copies.remove(key)
  assert held_back.encoded(1).image
  del held_back
  copies.remove(key)
  assert copies.keys() == []
  assert len(dataset.load(make_config().data).train) == 5


def test_a_half_made_copy_of_another_machine_is_given_a_day(make_config, tmp_path):
  write_tree(tmp_path)
  copies = PreparedCopies(_folder(make_config().data))
  half_made = copies.folder / "preparing-0-1"
  half_made.mkdir(parents=True)
  for file in (half_made / "lock", half_made / "train-0.writing"):
    file.write_text("another-machine")
  dataset.load(make_config().data)
  assert copies.half_made() == [half_made]
  two_days_ago = time.time() - 2 * 24 * 3600
  for path in (*half_made.iterdir(), half_made):
    os.utime(path, (two_days_ago, two_days_ago))
  write_tree(tmp_path, train_images=(3, 2, 4))
  dataset.load(make_config().data)
  assert copies.half_made() == []


def test_a_copy_whose_facts_are_cut_off_is_named(make_config, tmp_path):
  write_tree(tmp_path)
  facts = dataset.prepare(make_config().data).folder / copies_lib.FACTS_FILE
  facts.write_text(facts.read_text()[:20])
  with pytest.raises(PreparedCopyError, match="damaged") as error:
    dataset.load(make_config().data)
  assert str(error.value).startswith(str(facts))


def test_a_folder_for_copies_that_cannot_be_made_is_named(make_config, tmp_path):
  write_tree(tmp_path)
  (tmp_path / "file").write_text("no folder")
  with pytest.raises(PreparedCopyError, match=r"Not a directory.*config\.data\.data_dir"):
    dataset.load(make_config(data__data_dir=str(tmp_path / "file")).data)


def test_a_full_disk_is_named_and_nothing_is_left(make_config, tmp_path):
  write_tree(tmp_path)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # bytes of one file
  try:
    with pytest.raises(PreparedCopyError, match=r"File too large.*free some space"):
      dataset.load(make_config().data)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert [path.name for path in _folder(make_config().data).iterdir()] == ["sources"]


def test_a_removed_copy_is_not_called_changed(make_config, tmp_path, caplog):
  write_tree(tmp_path)
  key = dataset.prepare(make_config().data).key
  PreparedCopies(_folder(make_config().data)).remove(key)
  with caplog.at_level(logging.WARNING, logger="absl"):
    assert dataset.prepare(make_config().data).key == key
  assert "changed" not in caplog.text


def test_changed_lists_of_msmt17_are_noticed(make_config, tmp_path):
  root = tmp_path / "MSMT17_V1"
  name = "000{0}/000{0}_00{1}_0{1}_0303morning_0008_0.jpg"
  train = [name.format(person, number) for person in (0, 1) for number in (1, 2)]
  write_images(root, [f"train/{path}" for path in train])
  write_images(root, [f"test/{train[0]}", f"test/{train[1]}"])
  for split, paths in (("train", train), ("query", train[:1]), ("gallery", train[1:2])):
    (root / f"list_{split}.txt").write_text("".join(f"{path} {path[3]}\n" for path in paths))
  config = make_config(data__dataset="msmt17/v1", data__missing_part_labels="bands").data
  first = dataset.prepare(config)
  file = root / "list_train.txt"
  file.write_text(file.read_text().replace("morning_0008_0.jpg 1", "morning_0008_0.jpg 0", 1))
  assert dataset.prepare(config).key != first.key
