"""Opening a data set by name, and the prepared copy: never half made, never stale."""

import logging
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from magnifier_jax.config import ConfigError
from magnifier_jax.data import dataset

from .noise_tree import image_file, part_label_file, write_tree


@pytest.mark.parametrize("name", ["cuhk", "cuhk03_np/labelled", "cuhk03_np/labeled/x"])
def test_an_unknown_name_lists_the_known_ones(make_config, name):
  with pytest.raises(ConfigError, match=r"^config\.data\.dataset: .*cuhk03_np/detected") as error:
    dataset.load(make_config(data__dataset=name).data)
  assert repr(name) in str(error.value)


def test_the_prepared_copy_serves_without_the_source(make_config, tmp_path, caplog):
  write_tree(tmp_path)
  before = dataset.load(make_config().data)
  shutil.rmtree(tmp_path / "cuhk03-np")
  with caplog.at_level(logging.WARNING, logger="absl"):  # other tests run tools that silence it
    after = dataset.load(make_config().data)
  assert "Using the copy prepared before" in caplog.text
  assert after.train.encoded(2) == before.train.encoded(2)


@pytest.mark.parametrize("pick", [image_file, part_label_file])
def test_changed_files_are_prepared_again(make_config, tmp_path, caplog, pick):
  write_tree(tmp_path)
  dataset.load(make_config().data)
  Image.new("RGB" if pick is image_file else "L", (20, 48)).save(pick(tmp_path))
  with caplog.at_level(logging.WARNING, logger="absl"):  # other tests run tools that silence it
    changed = dataset.load(make_config().data)
  assert "preparing again" in caplog.text
  expected = image_file(tmp_path).read_bytes(), part_label_file(tmp_path).read_bytes()
  assert changed.train.encoded(0) == expected


def test_an_added_image_is_noticed(make_config, tmp_path):
  write_tree(tmp_path, train_images=(3, 2))
  dataset.load(make_config().data)
  write_tree(tmp_path, train_images=(3, 2, 4))
  assert dataset.load(make_config().data).train.num_people == 3


def test_an_unchanged_folder_is_not_prepared_again(make_config, tmp_path, no_preparing):
  write_tree(tmp_path)
  dataset.load(make_config().data)
  with no_preparing():
    assert len(dataset.load(make_config().data).train) == 5


def test_the_copy_used_last_opens_whatever_the_folder_holds(make_config, tmp_path, no_preparing):
  write_tree(tmp_path)
  config = make_config().data
  assert dataset.open_last_used(config, "query") is None
  before = dataset.load(config)
  write_tree(tmp_path, test_people=5)
  with no_preparing():
    split = dataset.open_last_used(config, "query")
  assert (split.name, len(split)) == ("query", len(before.query))
  assert split.encoded(1) == before.query.encoded(1)


def test_preparing_tells_how_far_it_is(make_config, tmp_path, capfd):
  write_tree(tmp_path)
  dataset.load(make_config().data)
  output = capfd.readouterr()
  assert "Preparing cuhk03_np, train: 100%" in output.err
  assert "5/5" in output.err
  assert output.out == ""


def test_real_cuhk03_has_the_published_counts(make_config, real_data):
  data = dataset.load(make_config(data__manual_dir=str(real_data)).data)
  assert [len(data.train), len(data.query), len(data.gallery)] == [4145, 832, 3200]
  assert [data.train.num_people, data.query.num_people, data.gallery.num_people] == [427, 416, 416]
  assert set(data.train.camera_id) == {1, 2}
  assert not set(data.train_person_ids) & set(data.query.person_id)


def test_a_prepared_copy_is_opened_without_tensorflow(make_config, tmp_path, repository):
  write_tree(tmp_path)
  config = make_config().data
  dataset.load(config)
  program = (
    "import sys\n"
    "from magnifier_jax.config_argument import load_config\n"
    "from magnifier_jax.data import dataset\n"
    "config = load_config(sys.argv[1], sys.argv[2:])\n"
    "assert len(dataset.load(config.data).train) == 5\n"
    "sys.exit('tensorflow' in sys.modules)"
  )
  arguments = [
    f"{repository / 'configs' / 'cuhk03.py'}:small",
    f"--config.data.manual_dir={config.manual_dir}",
    f"--config.data.data_dir={config.data_dir}",
  ]
  subprocess.run([sys.executable, "-c", program, *arguments], cwd=repository, check=True)
