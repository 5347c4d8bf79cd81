"""One run at a time in a workdir; the lock ends with its process."""

import errno
import fcntl
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from magnifier_jax.files.whole_file import WriteError
from magnifier_jax.workdir import lock
from magnifier_jax.workdir.lock import WorkdirInUseError, locked

HOLDER = """
import os, sys, time
from pathlib import Path
from magnifier_jax.workdir.lock import locked
with locked(Path(sys.argv[1]), print):
  if sys.argv[2] == "fork" and os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
  if sys.argv[2] != "fork":
    print("holds", flush=True)
  time.sleep(60)
"""


def start_holder(workdir: Path, repository: Path, how: str = "alone") -> subprocess.Popen:
  """Starts a process that holds the lock of a workdir; returns once it does."""
  process = subprocess.Popen(
    [sys.executable, "-c", HOLDER, str(workdir), how],
    cwd=repository,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )
  process.first_line = process.stdout.readline()
  return process


@pytest.fixture
def holder(tmp_path: Path, repository: Path) -> Iterator[subprocess.Popen]:
  process = start_holder(tmp_path, repository)
  yield process
  process.kill()
  process.wait()


def test_the_other_process_is_named(holder: subprocess.Popen, tmp_path: Path):
  said = []
  who = rf"process {holder.pid} on {re.escape(socket.gethostname())} since 20\d\d-\d\d-\d\d \d\d:"
  with (
    pytest.raises(WorkdirInUseError, match=rf"{tmp_path}: in use by {who}.*; wait for its end"),
    locked(tmp_path, said.append, patience_s=0.2),
  ):
    pytest.fail("two processes hold the lock")
  assert re.match(rf"{tmp_path} is in use by {who}.*; waiting 0 s", said[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_death_releases(holder: subprocess.Popen, tmp_path: Path, number: signal.Signals):
  holder.send_signal(number)
  holder.wait()
  with locked(tmp_path, pytest.fail):
    pass


def test_the_next_run_waits_for_one_that_is_ending(holder: subprocess.Popen, tmp_path: Path):
  def end_it(message: str) -> None:
    assert "is in use by" in message
    holder.kill()

  with locked(tmp_path, end_it, patience_s=30):
    assert f'"pid": {os.getpid()}' in (tmp_path / lock.LOCK_FILE).read_text()


def test_a_child_does_not_hold_the_lock_on(tmp_path: Path, repository: Path):
  process = start_holder(tmp_path, repository, "fork")
  child = int(process.first_line)
  try:
    process.kill()
    process.wait()
    with locked(tmp_path, pytest.fail, patience_s=0):
      os.kill(child, 0)  # it lives
  finally:
    os.kill(child, signal.SIGKILL)


def test_the_end_of_the_block_releases(tmp_path: Path):
  for _ in range(2):
    with pytest.raises(ValueError, match="mine"), locked(tmp_path, pytest.fail, patience_s=0):
      raise ValueError("mine")
  assert (tmp_path / lock.LOCK_FILE).read_text() == ""


def test_within_one_process_too(tmp_path: Path):
  with (
    locked(tmp_path, pytest.fail),
    pytest.raises(WorkdirInUseError, match=f"process {os.getpid()} on"),
    locked(tmp_path, lambda _: None, patience_s=0),
  ):
    pytest.fail("held twice")


def test_a_file_system_without_locks_is_said_once(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
  def refuse(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(fcntl, "flock", refuse)
  with caplog.at_level(logging.WARNING, logger="absl"), locked(tmp_path, pytest.fail):
    pass
  assert [record.getMessage() for record in caplog.records] == [
    f"{tmp_path}/run.lock: this file system has no locks; see that no other run uses the workdir"
  ]


def test_a_workdir_that_cannot_be_written_is_named(tmp_path: Path):
  (tmp_path / "file").write_text("in the way")
  with (
    pytest.raises(WriteError, match=r"file/run: cannot be written: Not a directory"),
    locked(tmp_path / "file" / "run", pytest.fail),
  ):
    pytest.fail("locked")


MEMBER = """
import sys
from pathlib import Path
import jax
jax.distributed.initialize(sys.argv[2], 2, int(sys.argv[3]))
from magnifier_jax.workdir.lock import WorkdirInUseError, locked
from jax.experimental import multihost_utils
try:
  with locked(Path(sys.argv[1]), print, patience_s=1):
    multihost_utils.sync_global_devices("both are in")
    print("IN")
except WorkdirInUseError as error:
  print(error)
"""


def run_members(workdir: Path, repository: Path) -> list[str]:
  """Runs two processes of one run; returns the last line of each."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    coordinator = f"127.0.0.1:{free.getsockname()[1]}"
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
  members = [
    subprocess.Popen(
      [sys.executable, "-c", MEMBER, str(workdir), coordinator, str(i)],
      cwd=repository,
      stdout=subprocess.PIPE,
      text=True,
      env=environment,
    )
    for i in range(2)
  ]
  return [member.communicate(timeout=120)[0].splitlines()[-1] for member in members]


@pytest.mark.slow
def test_processes_of_one_run_share_the_lock(tmp_path: Path, repository: Path):
  assert run_members(tmp_path, repository) == ["IN", "IN"]
  holder = start_holder(tmp_path, repository)
  try:
    start = time.monotonic()
    first, second = run_members(tmp_path, repository)
    assert time.monotonic() - start < 60
  finally:
    holder.kill()
    holder.wait()
  assert f"in use by process {holder.pid} on" in first
  assert second == f"{tmp_path}: cannot be used; see process 0"
