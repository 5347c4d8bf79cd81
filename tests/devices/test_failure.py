"""A process that fails ends the others, whatever they are waiting for, with its exit code."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

_PROGRAM = """
import os, signal, sys, time
from absl import app

sys.argv = ["main"]
from magnifier_jax import main
from magnifier_jax.devices.joining import join
from magnifier_jax.devices.processes import Launch
from magnifier_jax.errors import UserError

FAILING, KIND = int(os.environ["FAILING"]), os.environ["KIND"]


def fail():
  if KIND == "mendable":
    raise UserError("images.csv: no such file")
  if KIND == "interrupt":
    raise KeyboardInterrupt
  if KIND == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
  if KIND == "SIGTERM":
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(600)  # it leaves at once: nothing is trained yet
  raise RuntimeError("a fault of ours")


def run(argv, preemption):
  join(Launch())
  preemption.listen()  # as main does: joining installs a handler of JAX's
  import jax
  import jax.numpy as jnp
  import numpy as np
  from magnifier_jax.devices import mesh as mesh_lib

  mesh = mesh_lib.data_mesh()
  add = jax.jit(jnp.sum, out_shardings=mesh_lib.replicated(mesh))
  batch = mesh_lib.to_global(np.ones(1, np.float32), mesh)
  assert float(add(batch)) == 2
  if KIND == "nothing":
    return
  if jax.process_index() == FAILING:
    fail()
  if KIND == "mendable":
    time.sleep(600)  # anything that lasts
  if KIND == "SIGTERM":
    preemption.hold()  # as after the first update
    os.kill(os.getpid(), signal.SIGTERM)
  add(batch).block_until_ready()


main.main = run
app.run(main._run)
"""


def _free_port() -> int:
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


def _run_both(repository: Path, **settings: str) -> list[tuple[int, str]]:
  """Runs the program as two processes, without a launcher; returns exit codes and what they say."""
  environment = {
    **os.environ,
    **settings,
    "PYTHONPATH": str(repository),
    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{_free_port()}",
    "JAX_NUM_PROCESSES": "2",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
  }
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", _PROGRAM],
      env={**environment, "JAX_PROCESS_ID": str(number)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  deadline = time.monotonic() + 90
  try:
    said = [p.communicate(timeout=max(0, deadline - time.monotonic()))[1] for p in processes]
  finally:
    for process in processes:
      process.kill()
  return [(process.returncode, text) for process, text in zip(processes, said)]


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(
  ("kind", "code", "message"),
  [
    ("mendable", 2, "error: images.csv: no such file"),
    ("interrupt", 130, "interrupted; the same command goes on from the last checkpoint"),
    ("fault", 1, "RuntimeError: a fault of ours"),
  ],
)
def test_the_others_end_with_its_exit_code(
  repository: Path, kind: str, code: int, message: str, failing: int
):
  ended = _run_both(repository, KIND=kind, FAILING=str(failing))
  assert [process[0] for process in ended] == [code, code], ended
  said, heard = (ended[number][1].splitlines()[-1] for number in (failing, 1 - failing))
  assert said == message
  assert heard == f"process {failing} has failed, so this one ends too: {message}"


@pytest.mark.parametrize(
  ("kind", "code", "code_of_the_other"), [("killed", -signal.SIGKILL, 1), ("SIGTERM", 143, 143)]
)
def test_the_other_of_one_that_is_gone_says_so_in_one_line(
  repository: Path, kind: str, code: int, code_of_the_other: int
):
  ended = _run_both(repository, KIND=kind, FAILING="1")
  assert [process[0] for process in ended] == [code_of_the_other, code], ended
  said = ended[0][1]
  assert said.splitlines()[-1].startswith("another process of this run is gone; ")
  assert "Traceback" not in said


def test_processes_that_do_not_fail_part_as_before(repository: Path):
  ended = _run_both(repository, KIND="nothing", FAILING="0")
  assert [process[0] for process in ended] == [0, 0], ended
