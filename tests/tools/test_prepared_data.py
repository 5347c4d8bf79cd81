"""The tool that lists prepared copies and removes old ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from configs.cuhk03 import get_config
from magnifier_jax.config import Config, DataConfig
from magnifier_jax.data import dataset
from magnifier_jax.tools import prepared_data
from tests.data.noise_tree import image_file, write_tree


@pytest.fixture
def config(tmp_path) -> DataConfig:
  write_tree(tmp_path)
  config = get_config("small")
  config.data.manual_dir = str(tmp_path)
  config.data.data_dir = str(tmp_path / "prepared")
  return Config.from_config_dict(config).data


def _run(config: DataConfig, *options: str) -> list[list[str]]:
  output = prepared_data.main([f"--data_dir={config.data_dir}", *options])
  return [line.split("  ") for line in output.splitlines()]


def _states(config: DataConfig) -> dict[str, str]:
  """Returns the state of each copy."""
  table = [[cell.strip() for cell in row if cell.strip()] for row in _run(config)[1:]]
  return {row[0]: row[2] for row in table}


def _prepare_two(config: DataConfig, tmp_path: Path) -> tuple[str, str]:
  old = dataset.prepare(config).key
  Image.new("RGB", (20, 48)).save(image_file(tmp_path))
  return old, dataset.prepare(config).key


def test_copies_are_listed_with_what_they_were_made_from(config, tmp_path):
  old, new = _prepare_two(config, tmp_path)
  assert _states(config) == {old: "replaced", new: "current"}
  (line,) = [" ".join(row) for row in _run(config) if row[0] == old]
  assert "cuhk03_np/labeled" in line
  assert " 11 " in line  # images
  assert line.endswith(str(tmp_path))


def test_a_copy_of_that_name_is_removed(config, tmp_path):
  old, new = _prepare_two(config, tmp_path)
  _run(config, f"--remove={new}")
  assert _states(config) == {old: "replaced"}


def test_old_copies_are_removed_and_current_ones_stay(config, tmp_path):
  _, new = _prepare_two(config, tmp_path)
  folder = tmp_path / "prepared" / "cuhk03_np" / "labeled"
  for outdated, file in (("1.0.0", "source_fingerprint.json"), ("preparing-0-1", "lock")):
    (folder / outdated).mkdir()
    (folder / outdated / file).write_text(json.dumps(""))
  assert set(_states(config).values()) == {"current", "replaced", "outdated", "unfinished"}
  assert _run(config, "--remove=old")[0][0].startswith("removed 3 of 4 copies")
  assert _states(config) == {new: "current"}


def test_a_copy_in_use_is_listed_and_stays(config, tmp_path):
  reading = dataset.load(config)
  Image.new("RGB", (20, 48)).save(image_file(tmp_path))
  new = dataset.prepare(config).key
  (old,) = set(_states(config)) - {new}
  assert _states(config) == {old: "replaced, in use", new: "current"}
  assert _run(config, "--remove=old")[0][0].startswith("removed 0 of 2")
  program = [sys.executable, "-m", "magnifier_jax.tools.prepared_data"]
  command = [*program, f"--data_dir={config.data_dir}", f"--remove={old}"]
  result = subprocess.run(command, capture_output=True, text=True)
  assert result.returncode == 2
  assert result.stderr.startswith("error: ")
  assert "a running process uses this copy" in result.stderr
  assert result.stderr.count("\n") == 1
  assert reading.train.encoded(0).image


def test_a_copy_that_does_not_exist_is_named(config):
  dataset.prepare(config)
  with pytest.raises(prepared_data.RemoveError, match="no copy is called 0123"):
    _run(config, "--remove=0123")


def test_a_folder_without_copies_is_named(tmp_path):
  output = prepared_data.main([f"--data_dir={tmp_path / 'nowhere'}"])
  assert output == f"no prepared copies in {tmp_path / 'nowhere'}"
