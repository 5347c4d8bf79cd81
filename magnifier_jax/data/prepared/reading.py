"""Reads the sources of records side by side, and hands the records on in order."""

import collections
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from magnifier_jax.data.prepared import file_states, record_files
from magnifier_jax.data.prepared.reading_process import ReadingProcess
from magnifier_jax.data.prepared.record_files import EncodedRecord
from magnifier_jax.data.records import Record

_SOURCES_A_TASK = 64
# A process takes as long to start as it then takes to read some thousands of images.
_SOURCES_A_PROCESS = 20_000
_MAX_PROCESSES = 16  # each has a TensorFlow of its own, half a gigabyte
_MAX_THREADS = 8  # Python lets one at a time run; decoding and the disk work beside each other


class Reader(NamedTuple):
  """What is done with sources."""

  read_records: Callable[[Sequence[Any]], list[Record]]
  files: Callable[[Any], Sequence[str]]  # that a source's record is read from


class ReadSource(NamedTuple):
  """What a source became."""

  record: EncodedRecord
  digests: bytes  # of its files, one behind the other


class ReadingPool:
  """Threads that read, each in a process of its own where there is much to read.

  Processes are started afresh, since those that are forked off inherit the locks of JAX's and
  TensorFlow's threads.
  """

  def __init__(self, reader: Reader, num_sources: int):
    """Starts the threads.

    Args:
      reader: what is done with the sources; can be pickled.
      num_sources: how many there will be.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    num_processes = min(cores, _MAX_PROCESSES, num_sources // _SOURCES_A_PROCESS)
    self._reader = reader
    self._uses_processes = num_processes > 1
    self._workers = num_processes if self._uses_processes else min(cores, _MAX_THREADS)
    self._threads = ThreadPoolExecutor(self._workers)
    self._own = threading.local()
    self._processes: list[ReadingProcess] = []

  def __enter__(self) -> "ReadingPool":
    return self

  def __exit__(self, *_: object) -> None:
    self._threads.shutdown(wait=False, cancel_futures=True)
    for process in self._processes:
      process.kill()  # for which its thread waits
    self._threads.shutdown()
    for process in self._processes:
      process.close()

  def read_in_order(self, sources: Sequence[Any]) -> Iterator[ReadSource]:
    """Yields what each source became, in the order of the sources.

    Raises:
      SourceError: when a file is damaged; the message names it.
    """
    starts = range(0, len(sources), _SOURCES_A_TASK)
    submitted = (
      self._threads.submit(self._read, sources[start : start + _SOURCES_A_TASK]) for start in starts
    )
    for done in _ahead(submitted, 2 * self._workers):
      yield from done.result()

  def _read(self, sources: Sequence[Any]) -> list[ReadSource]:
    if not self._uses_processes:
      return read_sources(self._reader, sources)
    if not hasattr(self._own, "process"):
      self._own.process = ReadingProcess(read_sources, self._reader)
      self._processes.append(self._own.process)
    return self._own.process.call(sources)


def read_sources(reader: Reader, sources: Sequence[Any]) -> list[ReadSource]:
  """Reads some sources.

  Raises:
    SourceError: when a file is damaged; the message names it.
  """
  # Hashed before they are read: what is changed in between differs from its hash later on.
  digests = [b"".join(map(_digest, reader.files(source))) for source in sources]
  records = map(record_files.encode, reader.read_records(sources))
  return [ReadSource(record, digest) for record, digest in zip(records, digests)]


def _digest(file: str) -> bytes:
  try:
    return file_states.digest(file)
  except OSError:
    return bytes(file_states.DIGEST_BYTES)  # reading the record says what is wrong with it


def _ahead(futures: Iterable[Future], number: int) -> Iterator[Future]:
  """Yields futures in order, keeping the next ones submitted."""
  waiting = collections.deque()
  for future in futures:
    waiting.append(future)
    if len(waiting) > number:
      yield waiting.popleft()
  yield from waiting
