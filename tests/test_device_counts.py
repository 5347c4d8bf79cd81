"""The same run on any number of devices and processes, and from one number of them to another.

It trains on two data sets, as batches of one data set are a case of that.
"""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from magnifier_jax.devices.mesh import data_mesh, replicated
from magnifier_jax.train_state import TrainState, Weights

from .five_steps import RESULT, Run, Trained, make_config, write_data_sets

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """Two data sets of two people to train on each, and four to test on."""
  folder = tmp_path_factory.mktemp("noise")
  write_data_sets(folder)
  return folder


@functools.cache
def run_on(num_devices: int, dtype: str, manual_dir: Path) -> Run:
  return Run(make_config(manual_dir, dtype), data_mesh(jax.devices()[:num_devices]))


@functools.cache
def drawn(dtype: str, manual_dir: Path) -> TrainState:
  return jax.device_get(run_on(1, dtype, manual_dir).start())


def start(run: Run, manual_dir: Path) -> TrainState:
  return jax.device_put(drawn(run.config.dtype, manual_dir), replicated(run.mesh))


@functools.cache
def trained_on(
  num_devices: int, dtype: str, manual_dir: Path
) -> tuple[Trained, dict[str, float] | None]:
  run = run_on(num_devices, dtype, manual_dir)
  trained = run.train(start(run, manual_dir))
  # Rounding in float32 may swap two images that are as far.
  metrics = run.evaluate(trained.state) if dtype == "float64" else None
  return jax.device_get(trained), metrics


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
  def compare(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)

  jax.tree.map(compare, jax.device_get(actual), jax.device_get(expected))


@pytest.mark.parametrize(
  ("dtype", "num_devices"),
  [
    pytest.param("float64", 2, marks=pytest.mark.slow),
    pytest.param("float64", 4, marks=pytest.mark.slow),
    ("float64", 8),
    pytest.param("float32", 8, marks=pytest.mark.slow),
  ],
)
def test_devices_compute_what_one_does(dtype: str, num_devices: int, manual_dir: Path):
  with jax.enable_x64(dtype == "float64"):
    several, metrics = trained_on(num_devices, dtype, manual_dir)
    one, metrics_of_one = trained_on(1, dtype, manual_dir)
  assert_close(several, one, TOLERANCE[dtype])
  assert len(one.reported) == 5
  assert metrics == metrics_of_one


@pytest.mark.usefixtures("float64")
def test_what_is_averaged_is_parameters_and_statistics_after_the_update(manual_dir: Path):
  run, before = run_on(1, "float64", manual_dir), drawn("float64", manual_dir)
  after = jax.device_get(run.train(start(run, manual_dir), num_steps=1).state)

  def expected(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return (2 * old + 9 * new) / 11  # the first update's decay

  assert_close(before.average, Weights(before.params, before.batch_stats), 0)
  assert_close(after.average.params, jax.tree.map(expected, before.params, after.params), 1e-9)
  moved = jax.tree.map(expected, before.batch_stats, after.batch_stats)
  assert_close(after.average.batch_stats, moved, 1e-9)
  assert not np.array_equal(
    *(w["backbone"]["conv1"]["kernel"] for w in (before.params, after.params))
  )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8)])
def test_a_run_goes_on_where_there_are_more_or_fewer_devices(
  before: int, after: int, manual_dir: Path, tmp_path: Path
):
  first = run_on(before, "float64", manual_dir)
  first.save(tmp_path, first.train(start(first, manual_dir), num_steps=2).state)
  second = run_on(after, "float64", manual_dir)
  trained = second.train(second.restore(tmp_path))
  uninterrupted, metrics = trained_on(1, "float64", manual_dir)
  assert_close(trained.reported, uninterrupted.reported[2:], TOLERANCE["float64"])
  assert_close(trained.state, uninterrupted.state, TOLERANCE["float64"])
  assert second.evaluate(trained.state) == metrics


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_two_processes_of_two_devices_compute_what_one_device_does(
  manual_dir: Path, repository: Path, tmp_path: Path
):
  one, metrics_of_one = trained_on(1, "float64", manual_dir)
  launcher = (repository / "launch" / "local.sh", "--cpu-devices=2", "--")
  program = (sys.executable, "-m", "tests.five_steps", manual_dir, tmp_path)
  result = subprocess.run(
    [*launcher, *program], cwd=repository, capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stdout + result.stderr
  for process in (0, 1):
    prefix = f"[{process}] {RESULT}"
    (line,) = (line for line in result.stdout.splitlines() if line.startswith(prefix))
    reported, metrics = json.loads(line.removeprefix(prefix))
    assert_close(np.array(reported), one.reported, TOLERANCE["float64"])
    assert metrics == metrics_of_one
  restored = run_on(1, "float64", manual_dir).restore(tmp_path)
  assert_close(restored, one.state, TOLERANCE["float64"])
