"""One run at a time in a workdir: a lock that ends with the process that holds it.

A second run would delete checkpoints that the first one is still writing, and each would write
over the other's numbers.
"""

import contextlib
import datetime
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from magnifier_jax.errors import UserError
from magnifier_jax.files.whole_file import make_folder, writing

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None

LOCK_FILE = "run.lock"
# A machine that died holds a lock of NFS for as long as its lease, 90 s in Linux; and a scheduler
# starts a run again while the one before may still be ending.
PATIENCE_S = 100
_CANNOT_LOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


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
    WriteError: when nothing can be written in the workdir; in all processes.
  """
  file, problem = None, None
  if jax.process_index() == 0:
    try:
      file = _acquire(workdir, say, patience_s)
    except UserError as error:
      problem = error
  if multihost_utils.broadcast_one_to_all(np.array(problem is not None)):
    raise problem or WorkdirInUseError(f"{workdir}: cannot be used; see process 0")
  try:
    yield
  finally:
    if file is not None:
      _release(file)


def _acquire(workdir: Path, say: Callable[[str], None], patience_s: float) -> IO[str]:
  make_folder(workdir)
  path = workdir / LOCK_FILE
  with writing(path):
    file = path.open("a+", encoding="utf-8")
    locked_now = _try_lock(file)
    if not locked_now:
      say(f"{workdir} is in use by {_holder(file)}; waiting {patience_s:.0f} s for its end")
    deadline = time.monotonic() + patience_s
    while not locked_now and time.monotonic() < deadline:
      time.sleep(0.5)
      locked_now = _try_lock(file)
  if not locked_now:
    holder = _holder(file)
    file.close()
    raise WorkdirInUseError(
      f"{workdir}: in use by {holder}; wait for its end, stop it, or use another --workdir"
    )
  # A child that outlives this process must not hold the lock on.
  os.register_at_fork(after_in_child=file.close)
  _sign(file)
  return file


def _try_lock(file: IO[str]) -> bool:
  """Returns whether this process holds the lock, or none can be had."""
  if fcntl is None:
    return True
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError as error:
    if error.errno not in _CANNOT_LOCK:
      raise
    logging.warning(
      "%s: this file system has no locks (%s); see that no other run uses the workdir",
      file.name,
      error.strerror,
    )
  return True


def _sign(file: IO[str]) -> None:
  since = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
  signature = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
  with contextlib.suppress(OSError):  # it is for people; a full disk says so at the next file
    file.truncate(0)
    file.write(json.dumps(signature) + "\n")
    file.flush()


def _holder(file: IO[str]) -> str:
  """Returns who holds the lock, as far as it has said so."""
  try:
    file.seek(0)
    signature = json.loads(file.read())
    return f"process {signature['pid']} on {signature['host']} since {signature['since']}"
  except (OSError, ValueError, KeyError, TypeError):
    return "another process"


def _release(file: IO[str]) -> None:
  # The file stays: a run that waits for it has it open.
  with contextlib.suppress(OSError):
    file.truncate(0)
  file.close()
