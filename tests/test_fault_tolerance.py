"""Runs that are ended by signals end with what an uninterrupted run ends with, bit for bit."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kill_and_resume import (
  SMALL_NETWORK,
  Moment,
  TrainingProcess,
  difference,
  write_images,
)

pytestmark = pytest.mark.slow

_SCHEDULE = (
  "--config.training.num_epochs=3",
  "--config.training.steps_per_epoch=4",
  "--config.training.log_every_steps=1",
  "--config.evaluation.every_epochs=1",
  "--config.evaluation.initial=True",
  # One branch compiles faster; what is saved and restored is of the same kind.
  "--config.model.adversarial_branch=False",
  "--config.model.fusion_branch=False",
  "--config.model.part_segmentation=False",
)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
  """The arguments of a tiny run; its processes share a cache of compilations."""
  folder = tmp_path_factory.mktemp("runs")
  write_images(folder / "images" / "my_images")
  with pytest.MonkeyPatch.context() as patch:
    patch.delenv("XLA_FLAGS", raising=False)  # one device
    patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "compilations"))
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    yield [
      "--config=configs/custom.py:small",
      f"--config.data.manual_dir={folder}/images",
      f"--config.data.data_dir={folder}/data",
      *SMALL_NETWORK,
      *_SCHEDULE,
    ]


@pytest.fixture(scope="module")
def uninterrupted(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
  """The workdir of a run from start to end."""
  process = TrainingProcess(arguments, tmp_path_factory.mktemp("uninterrupted"))
  assert process.finish() == 0, process.lines
  return process.workdir


def test_killed_run_ends_as_an_uninterrupted_one(
  arguments: list[str], uninterrupted: Path, tmp_path: Path
):
  # SIGTERM's message differs with the moment; the exit code does not.
  for moment in (
    Moment(signal.SIGKILL, True, random.uniform(0, 0.3)),
    Moment(signal.SIGTERM, False, random.uniform(0, 1)),
  ):
    process = TrainingProcess(arguments, tmp_path)
    code = process.end_at(moment)
    expected = -signal.SIGKILL if moment.signal == signal.SIGKILL else 143
    assert code in (expected, 0), (moment, process.lines)
    if code == 143:
      assert process.lines[-1].startswith("SIGTERM: ")
      assert "the same command goes on" in process.lines[-1]
  last = TrainingProcess(arguments, tmp_path)
  assert last.finish() == 0, last.lines
  assert difference(tmp_path, uninterrupted) is None


def process_ids(launcher: int) -> dict[str, int]:
  """The processes of a run that a launcher started, by their number in it."""
  found = {}
  for folder in Path("/proc").glob("[0-9]*"):
    try:
      parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
      environment = dict(
        entry.split("=", 1)
        for entry in (folder / "environ").read_text().split("\0")
        if "=" in entry
      )
    except (OSError, ValueError):
      continue
    if parent == launcher and "JAX_PROCESS_ID" in environment:
      found[environment["JAX_PROCESS_ID"]] = int(folder.name)
  return found


@pytest.mark.usefixtures("uninterrupted")  # has prepared the images
def test_sigterm_to_one_of_two_processes_saves_the_same_step_on_both(
  arguments: list[str], tmp_path: Path
):
  launcher = ["launch/local.sh", "--processes=2", "--"]
  # No evaluation, before which everything is saved anyway.
  longer = ["--config.training.num_epochs=40", "--config.evaluation.every_epochs=40"]
  process = TrainingProcess([*arguments, *longer], tmp_path, launcher)
  while not any("step 2/" in line for line in process.lines) and process.is_running():
    time.sleep(0.1)
  os.kill(process_ids(process.id)["1"], signal.SIGTERM)
  assert process.finish() == 143, process.lines
  # The first of each: when one has left, the launcher sends another SIGTERM to the other.
  said = {line[:3]: line[4:] for line in reversed(process.lines) if "SIGTERM" in line}
  assert said.keys() == {"[0]", "[1]"}, process.lines
  assert said["[0]"] == said["[1]"]
  assert "is saved; the same command goes on from it" in said["[0]"]
