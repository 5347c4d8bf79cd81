"""Reading on several cores gives the records in order, and the errors of the files."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from magnifier_jax.data import dataset
from magnifier_jax.data.datasets.image_list import ImageList
from magnifier_jax.data.prepared import reading
from magnifier_jax.data.prepared.reading_process import ReadingProcess
from magnifier_jax.data.records import SourceError
from tests.data.noise_tree import image_file, write_tree

from . import reading_functions


@pytest.fixture
def in_processes(monkeypatch) -> None:
  """Few images are read as many are."""
  monkeypatch.setattr(reading, "_SOURCES_A_PROCESS", 4)
  monkeypatch.setattr(reading, "_SOURCES_A_TASK", 2)
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def _records(data: dataset.ReidDataset) -> list[tuple]:
  return [
    (path, *split.encoded(row), split.person_id[row], split.camera_id[row])
    for split in (data.train, data.query, data.gallery)
    for row, path in enumerate(split.path)
  ]


def test_processes_read_what_threads_read(make_config, tmp_path, request):
  write_tree(tmp_path, train_images=(3, 5, 4), test_people=3)
  in_threads = dataset.load(make_config(data__data_dir=str(tmp_path / "threads")).data)
  request.getfixturevalue("in_processes")
  in_processes = dataset.load(make_config(data__data_dir=str(tmp_path / "processes")).data)
  assert _records(in_processes) == _records(in_threads)


def test_a_damaged_file_is_named_from_a_process(make_config, tmp_path, in_processes):
  write_tree(tmp_path, train_images=(3, 5, 4), test_people=3)
  file = image_file(tmp_path, "gallery")
  file.write_bytes(file.read_bytes()[:200])
  with pytest.raises(SourceError, match="truncated or unreadable") as error:
    dataset.load(make_config().data)
  assert str(error.value).startswith(str(file))


def test_a_script_without_a_guard_is_not_run_again(tmp_path, repository):
  script = tmp_path / "script.py"
  script.write_text(
    "from magnifier_jax.data.prepared.reading_process import ReadingProcess\n"
    "from tests.data.prepared import reading_functions\n"
    "process = ReadingProcess(reading_functions.add, 40)\n"
    "print(process.call(2)[0])\n"
    "process.close()\n"
  )
  environment = {**os.environ, "PYTHONPATH": str(repository)}
  result = subprocess.run(
    [sys.executable, str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True
  )
  assert (result.returncode, result.stdout) == (0, "42\n"), result.stderr


def test_a_builder_survives_pickling(tmp_path):
  builder = ImageList(folder="mine", missing_part_labels="bands", data_dir=str(tmp_path))
  copy = pickle.loads(pickle.dumps(builder))
  assert (copy.name, copy.missing_part_labels) == ("image_list_mine", "bands")
  assert copy.data_path == builder.data_path


def test_a_process_answers_again_and_again():
  process = ReadingProcess(reading_functions.add, 40)
  try:
    (first, number), (second, same_number) = process.call(2), process.call(3)
  finally:
    process.close()
  assert (first, second) == (42, 43)
  assert number == same_number != os.getpid()


def test_errors_come_over_as_they_are():
  process = ReadingProcess(reading_functions.refuse, "folder")
  try:
    for name in ("a", "b"):
      with pytest.raises(SourceError, match=f"folder/{name}: damaged"):
        process.call(name)
  finally:
    process.close()


def test_a_process_that_was_killed_is_an_error_with_its_code():
  process = ReadingProcess(reading_functions.die, None)
  try:
    with pytest.raises(RuntimeError, match="ended with exit code -9"):
      process.call(None)
  finally:
    process.close()


def test_many_sources_keep_their_order(monkeypatch):
  monkeypatch.setattr(reading, "_SOURCES_A_TASK", 3)
  monkeypatch.setattr(reading, "read_sources", lambda reader, sources: list(sources))
  sources = list(np.random.default_rng(0).permutation(100))
  with reading.ReadingPool(None, len(sources)) as pool:
    assert list(pool.read_in_order(sources)) == sources
    assert list(pool.read_in_order([])) == []
