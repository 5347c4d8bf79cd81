"""Whether files are still what they were: size and times first, and contents where these differ."""

import functools
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

DIGEST_BYTES = 16

# A file that is written twice within one tick of its file system's clock looks unchanged by its
# times. The coarsest clock in use, FAT's, ticks every 2 s.
_TICK_NANOSECONDS = 2_000_000_000
_UNKNOWN = -1  # a time that no file has
_BLOCK = 1 << 20  # bytes read at once
_FILES_A_TASK = 512
_THREADS = 8


def look(files: Sequence[str]) -> np.ndarray:
  """Asks the file system about files, without reading them.

  Returns:
    Of each file its size in bytes and the times, in ns, at which its contents and its entry last
    changed, (N, 3) int64. The second cannot be set back by programs. A file that is not there: -1.
  """
  # A file server's answer takes long; others can be asked meanwhile.
  with ThreadPoolExecutor(_THREADS) as threads:
    found = list(threads.map(_look, _chunks(files)))
  return np.concatenate([np.empty((0, 3), np.int64), *found])


def _look(files: Sequence[str]) -> np.ndarray:
  numbers = []
  # A million files: every name that is looked up once instead of each time counts.
  append, stat = numbers.append, os.stat
  for file in files:
    try:
      found = stat(file)
    except OSError:
      append(_UNKNOWN)
      append(_UNKNOWN)
      append(_UNKNOWN)
    else:
      append(found.st_size)
      append(found.st_mtime_ns)
      append(found.st_ctime_ns)
  return np.array(numbers, np.int64).reshape(-1, 3)


def _chunks(files: Sequence[str]) -> Iterator[Sequence[str]]:
  return (files[start : start + _FILES_A_TASK] for start in range(0, len(files), _FILES_A_TASK))


def settled(states: np.ndarray, looked_at: int) -> np.ndarray:
  """Returns states fit to be stored: those of files that were just written match no later look.

  Args:
    states: of `look`.
    looked_at: time before that look, ns.
  """
  fresh = states[:, 1:].max(axis=1, initial=_UNKNOWN) > looked_at - _TICK_NANOSECONDS
  stored = states.copy()
  stored[fresh, 1:] = _UNKNOWN
  return stored


def now() -> int:
  """Returns the time in ns, on the clock that files are stamped with."""
  return time.time_ns()


def differing(before: np.ndarray, after: np.ndarray) -> np.ndarray:
  """Returns the rows in which two arrays of states differ."""
  return np.flatnonzero((before != after).any(axis=1))


def digest(file: str) -> bytes:
  """Returns a hash of a file's contents, 16 bytes.

  Raises:
    OSError: when it cannot be read.
  """
  found = os.stat(file)
  return _digest(file, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


# All images of one large file follow each other, and it is read once.
@functools.lru_cache(maxsize=1)
def _digest(file: str, *state: int) -> bytes:
  del state
  hashed = hashlib.blake2b(digest_size=DIGEST_BYTES)
  descriptor = os.open(file, os.O_RDONLY)
  try:
    while block := os.read(descriptor, _BLOCK):
      hashed.update(block)
  finally:
    os.close(descriptor)
  return hashed.digest()


def digests(files: Sequence[str]) -> np.ndarray:
  """Returns `digest` of each file, (N, 16) uint8.

  Raises:
    OSError: when one cannot be read.
  """
  # Reading and hashing let other threads run.
  with ThreadPoolExecutor(_THREADS) as threads:
    found = threads.map(lambda chunk: b"".join(map(digest, chunk)), _chunks(files))
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, DIGEST_BYTES)
