"""Runs that are ended by signals end with what an uninterrupted run ends with, bit for bit."""

import random
import signal
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
  """The arguments of a tiny run; its processes share a cache of compilations and of byte code."""
  folder = tmp_path_factory.mktemp("runs")
  write_images(folder / "images" / "my_images")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiles faster; one device
    patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "compilations"))
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    patch.setenv("PYTHONPYCACHEPREFIX", str(folder / "byte_code"))
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
