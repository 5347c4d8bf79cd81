"""Locks on files that end with the process that holds them, however it ends."""

import errno
import fcntl
import os
import weakref
from pathlib import Path

# What file systems without locks answer, some of those of clusters among them.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class FileLock:
  """A lock that is held until it is released or dropped, or the process ends.

  Attributes:
    is_real: False where the file system has no locks; then several may hold it.
  """

  def __init__(self, descriptor: int, is_real: bool):
    """Takes over an open file; `acquire` makes locks."""
    self._descriptor = descriptor
    self.is_real = is_real
    self.release = weakref.finalize(self, os.close, descriptor)

  def is_on(self, file: Path) -> bool:
    """Whether the locked file is still the one of that path."""
    try:
      return os.path.samestat(os.fstat(self._descriptor), file.stat())
    except OSError:
      return False


def acquire(file: Path, *, shared: bool, wait: bool = False) -> FileLock | None:
  """Locks a file that exists.

  Args:
    file: only marks what is locked; nothing is written to it.
    shared: whether several may hold the lock at once.
    wait: whether to wait for those who hold it.

  Returns:
    The lock; None when somebody else holds it.

  Raises:
    OSError: when there is no such file, or it may not be opened.
  """
  # An exclusive lock on NFS wants a file that is open for writing; readers may lack the right.
  descriptor = os.open(file, os.O_RDONLY if shared else os.O_RDWR)
  try:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
  except BlockingIOError:
    os.close(descriptor)
    return None
  except OSError as error:
    if error.errno not in _UNSUPPORTED:
      os.close(descriptor)
      raise
    return FileLock(descriptor, is_real=False)
  return FileLock(descriptor, is_real=True)
