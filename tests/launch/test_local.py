"""Several processes on this machine, for real."""

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.conftest import FakePrograms

GLOBAL_SUM = """
  from magnifier_jax.devices.joining import join
  from magnifier_jax.devices.processes import Launch

  join(Launch())
  import jax
  import jax.numpy as jnp
  import numpy as np
  from magnifier_jax.devices.mesh import data_mesh, replicated, to_global

  mesh = data_mesh()
  first = 2.0 * jax.process_index()
  batch = to_global(np.array([10.0 ** first, 10.0 ** (first + 1)], np.float32), mesh)
  total = jax.jit(jnp.sum, out_shardings=replicated(mesh))(batch)
  print("RESULT", jax.process_index(), jax.process_count(), jax.device_count(), float(total))
"""


def test_two_processes_of_two_devices_agree_on_a_global_sum(
  launch: Path, repository: Path, programs: FakePrograms
):
  program = programs.folder / "global_sum.py"
  program.write_text(textwrap.dedent(GLOBAL_SUM))
  result = programs.run(
    launch / "local.sh",
    "--cpu-devices=2",
    f"--logs={programs.folder}",
    "--",
    sys.executable,
    program,
    PYTHONPATH=str(repository),
  )
  assert result.returncode == 0, result.stdout + result.stderr
  for process in (0, 1):
    expected = f"RESULT {process} 2 4 1111.0"
    assert f"[{process}] {expected}" in result.stdout.splitlines()
    assert expected in (programs.folder / f"process-{process}.log").read_text().splitlines()


def test_the_first_failure_ends_all_and_is_the_exit_code(launch: Path, programs: FakePrograms):
  command = 'if [ "$JAX_PROCESS_ID" = 1 ]; then exit 7; else exec sleep 60; fi'
  start = time.monotonic()
  result = programs.run(launch / "local.sh", "--processes=3", "--", "bash", "-c", command)
  assert result.returncode == 7
  assert time.monotonic() - start < 10
  assert "process 1 ended with exit code 7" in result.stderr


def test_what_does_not_heed_sigterm_is_killed(launch: Path, programs: FakePrograms):
  command = """
    if [ "$JAX_PROCESS_ID" = 1 ]; then sleep 0.5; exit 3; fi
    trap 'echo deaf' TERM
    while :; do sleep 0.1; done
  """
  start = time.monotonic()
  result = programs.run(launch / "local.sh", "--grace=1", "--", "bash", "-c", command)
  assert result.returncode == 3
  assert time.monotonic() - start < 10
  assert "[0] deaf" in result.stdout
  assert "process 0 ended with exit code 137" in result.stderr


@pytest.fixture
def interruptible() -> Iterator[None]:
  """SIGINT reaches child processes, although a shell starts background commands that ignore it."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("interruptible")
def test_signals_reach_every_process(launch: Path, programs: FakePrograms, number: signal.Signals):
  command = """
    trap 'echo saved; exit 0' TERM INT
    echo ready
    while :; do sleep 0.1; done
  """
  process = subprocess.Popen(
    [launch / "local.sh", "--", "bash", "-c", command],
    env=programs.environment(),
    stdout=subprocess.PIPE,
    text=True,
  )
  ready = sorted(process.stdout.readline() for _ in range(2))
  assert ready == ["[0] ready\n", "[1] ready\n"]
  process.send_signal(number)
  output, _ = process.communicate(timeout=20)
  # The shell's own sleep is told too, and the shell may say so.
  assert {"[0] saved", "[1] saved"} <= set(output.splitlines())
  assert process.returncode == 0


def test_gpus_are_shared(launch: Path, programs: FakePrograms):
  programs.add("nvidia-smi", "seq 0 3")
  result = programs.run(
    launch / "local.sh", "--gpus", "--", "bash", "-c", 'echo "$CUDA_VISIBLE_DEVICES"'
  )
  assert sorted(result.stdout.splitlines()) == ["[0] 0,1", "[1] 2,3"]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--processes=2"], "no command"),
    (["--processes=0", "--", "true"], "--processes: must be a whole number from 1, got '0'"),
    (["--cpu-devices=x", "--", "true"], "--cpu-devices: must be a whole number from 1, got 'x'"),
    (["--proceses=2", "--", "true"], "unknown option '--proceses=2'"),
    (["--gpus", "--processes=3", "--", "true"], "3 processes cannot share 4 GPUs evenly"),
  ],
)
def test_bad_input_is_one_line(
  launch: Path, programs: FakePrograms, arguments: list[str], message: str
):
  programs.add("nvidia-smi", "seq 0 3")
  result = programs.run(launch / "local.sh", *arguments)
  assert result.returncode == 2
  assert message in result.stderr
  assert len(result.stderr.splitlines()) == 1
