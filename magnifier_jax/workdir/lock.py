"""One run at a time in a workdir: a lock that ends with the process that holds it.

A second run would delete checkpoints that the first one is still writing, and each would write
over the other's numbers.
"""

import contextlib
import datetime
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from magnifier_jax.errors import UserError
from magnifier_jax.files import file_lock
from magnifier_jax.files.file_lock import FileLock
from magnifier_jax.files.whole_file import make_folder, writing
from magnifier_jax.workdir.ownership import LOCK_FILE, check_no_foreign_files

# A machine that died holds a lock of NFS for as long as its lease, 90 s in Linux; and a scheduler
# starts a run again while the one before may still be ending.
PATIENCE_S = 100


class WorkdirInUseError(UserError):
  """Another process trains in the workdir."""


@contextlib.contextmanager
def locked(
  workdir: Path, say: Callable[[str], None], patience_s: float = PATIENCE_S
) -> Iterator[None]:
  """Keeps other runs out of a workdir, which is created, for the time of a block.

  The processes of one run share a workdir: process 0 holds the lock for all. When a process dies,
  whatever from, the system takes its lock away.

  Args:
    workdir: of the run.
    say: is told that this process waits for another one to end.
    patience_s: seconds to wait for that.

  Raises:
    WorkdirInUseError: when another run holds it; in all processes.
    ForeignFilesError: when it holds files of something else; in process 0.
    WriteError: when nothing can be written in the workdir; in all processes.
  """
  lock, problem = None, None
  if jax.process_index() == 0:
    try:
      lock = _acquire(workdir, say, patience_s)
    except UserError as error:
      problem = error
  if multihost_utils.broadcast_one_to_all(np.array(problem is not None)):
    raise problem or WorkdirInUseError(f"{workdir}: cannot be used; see process 0")
  try:
    yield
  finally:
    if lock is not None:
      _sign(workdir / LOCK_FILE, "")
      lock.release()


def _acquire(workdir: Path, say: Callable[[str], None], patience_s: float) -> FileLock:
  check_no_foreign_files(workdir)
  make_folder(workdir)
  file = workdir / LOCK_FILE
  with writing(file):
    file.touch()
    lock = file_lock.acquire(file, shared=False)
    if lock is None:
      say(f"{workdir} is in use by {_holder(file)}; waiting {patience_s:.0f} s for its end")
    deadline = time.monotonic() + patience_s
    while lock is None and time.monotonic() < deadline:
      time.sleep(0.5)
      lock = file_lock.acquire(file, shared=False)
  if lock is None:
    raise WorkdirInUseError(
      f"{workdir}: in use by {_holder(file)}; wait for its end, stop it, or use another --workdir"
    )
  if not lock.is_real:
    logging.warning(
      "%s: this file system has no locks; see that no other run uses the workdir", file
    )
  # A child that outlives this process must not hold the lock on.
  os.register_at_fork(after_in_child=lock.release)
  since = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
  holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
  _sign(file, json.dumps(holder) + "\n")
  return lock


def _sign(file: Path, text: str) -> None:
  """Writes who holds the lock, into the file that is locked: a new one would not be."""
  with contextlib.suppress(OSError):  # it is for people; a full disk says so at the next file
    file.write_text(text)


def _holder(file: Path) -> str:
  """Returns who holds the lock, as far as it has said so."""
  try:
    holder = json.loads(file.read_text())
    return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
  except (OSError, ValueError, KeyError, TypeError):
    return "another process"
