"""Locks between processes, and where a file system has none."""

import errno
import fcntl
import subprocess
import sys

import pytest

from magnifier_jax.files import file_lock


@pytest.fixture
def file(tmp_path):
  file = tmp_path / "lock"
  file.touch()
  return file


def test_an_exclusive_lock_keeps_everybody_out_until_it_is_released(file):
  lock = file_lock.acquire(file, shared=False)
  assert lock.is_real
  assert file_lock.acquire(file, shared=True) is None
  assert file_lock.acquire(file, shared=False) is None
  lock.release()
  assert file_lock.acquire(file, shared=False) is not None


def test_shared_locks_keep_only_an_exclusive_one_out(file):
  first = file_lock.acquire(file, shared=True)
  second = file_lock.acquire(file, shared=True)
  assert file_lock.acquire(file, shared=False) is None
  del first
  assert file_lock.acquire(file, shared=False) is None
  del second
  assert file_lock.acquire(file, shared=False) is not None


def test_a_killed_process_holds_no_lock(file, repository):
  program = (
    "import os, signal, sys; from pathlib import Path\n"
    "from magnifier_jax.files import file_lock\n"
    "lock = file_lock.acquire(Path(sys.argv[1]), shared=False)\n"
    "print('locked', flush=True); signal.pause()"
  )
  command = [sys.executable, "-c", program, str(file)]
  process = subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE)
  assert process.stdout.readline() == b"locked\n"
  assert file_lock.acquire(file, shared=True) is None
  process.kill()
  process.wait()
  process.stdout.close()
  assert file_lock.acquire(file, shared=True) is not None


def test_a_lock_knows_whether_its_file_was_moved_away(file):
  lock = file_lock.acquire(file, shared=True)
  assert lock.is_on(file)
  file.rename(file.with_name("moved"))
  assert not lock.is_on(file)
  file.touch()
  assert not lock.is_on(file)


def test_a_file_system_without_locks_stops_nobody(file, monkeypatch):
  def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", refuse)
  locks = [file_lock.acquire(file, shared=False) for _ in range(2)]
  assert [lock.is_real for lock in locks] == [False, False]
