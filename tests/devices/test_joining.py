"""Joining other processes: what is said, and how it ends when they do not come."""

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from magnifier_jax.devices import joining
from magnifier_jax.devices.joining import join
from magnifier_jax.devices.processes import Launch, LaunchError

ALONE = Launch(cluster="none", num_processes=2)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
  """Leaves out what the environment may say about processes."""
  for name in [name for name in os.environ if name.startswith(("JAX_COORD", "SLURM"))]:
    monkeypatch.delenv(name)


@pytest.fixture
def used_port() -> Iterator[int]:
  """A port on which something listens."""
  with socket.create_server(("", 0)) as server:
    yield server.getsockname()[1]


def test_a_coordinator_that_does_not_answer_is_named():
  # Nothing listens on port 1.
  launch = ALONE._replace(coordinator="127.0.0.1:1", process_id=1)
  with pytest.raises(LaunchError, match=r"process 1 cannot reach process 0 at 127\.0\.0\.1:1 \("):
    join(launch, timeout_s=0)


def test_a_name_that_is_unknown_is_named():
  launch = ALONE._replace(coordinator="nowhere.invalid:1", process_id=1)
  with pytest.raises(LaunchError, match=r"at nowhere\.invalid:1 \(nowhere\.invalid: .*gave up"):
    join(launch, timeout_s=0)


def test_a_port_in_use_is_named(used_port: int):
  launch = ALONE._replace(coordinator=f"127.0.0.1:{used_port}", process_id=0)
  with pytest.raises(LaunchError, match=f"port {used_port} of this machine is in use"):
    join(launch, timeout_s=0)


def test_waiting_is_not_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
  monkeypatch.setattr(joining, "_SILENCE_S", 0.3)
  launch = ALONE._replace(coordinator="127.0.0.1:1", process_id=1)
  with pytest.raises(LaunchError, match="gave up after 2 s"):
    join(launch, timeout_s=2)
  said = capsys.readouterr().err.splitlines()
  assert 2 <= len(said) <= 4  # at 0.3, 0.6 and 1.2 s
  assert all(line.startswith("waiting, ") for line in said)
  assert "s at most: process 1 cannot reach process 0 at 127.0.0.1:1 (" in said[0]


JOIN = """
  from magnifier_jax.devices.failure import end_run
  from magnifier_jax.devices.joining import join
  from magnifier_jax.devices.processes import Launch, LaunchError

  try:
    join(Launch("none", "127.0.0.1:{port}", 2, 0), timeout_s=1)
  except LaunchError as error:
    end_run(2, "there is nobody to tell")
    print(error)
"""


def test_process_0_whose_others_do_not_come_ends_without_a_stack_trace(repository: Path):
  with socket.create_server(("", 0)) as server:
    port = server.getsockname()[1]
  program = textwrap.dedent(JOIN).replace("{port}", str(port))
  result = subprocess.run(
    [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=False
  )
  assert (result.returncode, result.stderr) == (0, "")
  said, error = result.stdout.splitlines()
  assert said == f"joining 2 processes at 127.0.0.1:{port}"
  assert error.startswith(f"not all of 2 processes at 127.0.0.1:{port} have come; gave up after")


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  """A stand-in for SLURM's look-up of nodes, which fails until a test writes it."""
  program = tmp_path / "scontrol"
  program.write_text("#!/bin/sh\nexit 1\n")
  program.chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
  monkeypatch.setenv("SLURM_JOB_ID", "7")
  return program


@pytest.mark.parametrize(
  ("shown", "address"),
  [
    ("exit 1", "n1.invalid:1"),
    ("echo NodeName=$3 NodeAddr=127.0.0.1 NodeHostName=m", "127.0.0.1:1"),
    ("echo NodeName=$3 NodeAddr=::1 NodeHostName=m", "[::1]:1"),
  ],
)
def test_slurm_knows_where_a_node_is_whose_name_does_not_resolve(
  scontrol: Path, shown: str, address: str
):
  scontrol.write_text(f"#!/bin/sh\n{shown}\n")
  launch = ALONE._replace(coordinator="n1.invalid:1", process_id=1)
  with pytest.raises(LaunchError) as error:
    join(launch, timeout_s=0)
  assert f"cannot reach process 0 at {address} (" in str(error.value)
