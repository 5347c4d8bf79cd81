"""Reads the sources of records side by side, and hands the records on in order."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from magnifier_jax.data.prepared import file_states, record_files
from magnifier_jax.data.prepared.record_files import EncodedRecord
from magnifier_jax.data.records import Record

_SOURCES_A_TASK = 64


class Reader(NamedTuple):
  """What is done with each source."""

  read_record: Callable[[Any], Record]
  files: Callable[[Any], Sequence[str]]  # that the record is read from


class ReadSource(NamedTuple):
  """What a source became."""

  record: EncodedRecord
  digests: bytes  # of its files, one behind the other


def read_sources(reader: Reader, sources: Sequence[Any]) -> list[ReadSource]:
  """Reads some sources, one after the other.

  Raises:
    SourceError: when a file is damaged; the message names it.
  """
  return [_read(reader, source) for source in sources]


def _read(reader: Reader, source: Any) -> ReadSource:
  # Hashed before it is read: what is changed in between differs from its hash later on.
  digests = b"".join(map(_digest, reader.files(source)))
  return ReadSource(record_files.encode(reader.read_record(source)), digests)


def _digest(file: str) -> bytes:
  try:
    return file_states.digest(file)
  except OSError:
    return bytes(file_states.DIGEST_BYTES)  # reading the record says what is wrong with it


def read_in_order(reader: Reader, sources: Sequence[Any]) -> Iterator[ReadSource]:
  """Yields what each source became, in the order of the sources, reading ahead on all cores.

  Raises:
    SourceError: when a file is damaged; the message names it.
  """
  tasks = (
    sources[start : start + _SOURCES_A_TASK] for start in range(0, len(sources), _SOURCES_A_TASK)
  )
  workers = os.cpu_count() or 1
  with ThreadPoolExecutor(workers) as threads:
    submitted = (threads.submit(read_sources, reader, task) for task in tasks)
    for done in _ahead(submitted, 2 * workers):
      yield from done.result()


def _ahead(futures: Iterable[Future], number: int) -> Iterator[Future]:
  """Yields futures in order, keeping the next ones submitted."""
  waiting = collections.deque()
  for future in futures:
    waiting.append(future)
    if len(waiting) > number:
      yield waiting.popleft()
  yield from waiting
