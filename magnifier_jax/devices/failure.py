"""A process that fails ends its whole run: the others learn of it, and leave with its exit code.

By themselves they would wait for it in their next sum over all devices, while it waited for them at
the barrier where JAX's processes part: for minutes, and then without saying why. So a process that
fails leaves a note with the coordinator, process 0, where the others look once a second.
"""

import atexit
import contextlib
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
  from jax._src.lib import _jax

_NOTES = "magnifier_jax/failures/"
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_FOR_THE_OTHERS = 10.0
_is_joined = threading.Event()  # before, a process has nobody to tell anything
_leaving = threading.Lock()  # taken by the first thread that ends the process, and never given back


class _Note(NamedTuple):
  """What a process that fails tells the others."""

  process: int
  code: int  # exit code
  message: str  # its last line


class _Process(NamedTuple):
  """This process among those of its run."""

  client: "_jax.DistributedRuntimeClient"  # of the coordinator
  number: int
  num_processes: int


def watch() -> None:
  """Looks, in a thread, whether another process of the run has failed; then ends this one.

  To be called once all processes of the run have joined.
  """
  _is_joined.set()
  process = _this_process()
  is_leaving = threading.Event()

  def look() -> None:
    while not is_leaving.wait(_SECONDS_BETWEEN_LOOKS):
      other = _first_of_the_others(process)
      if other is not None:
        _leave(process, other.code, _about(other))

  thread = threading.Thread(target=look, daemon=True)
  thread.start()

  def stop() -> None:  # before JAX gives up the client
    is_leaving.set()
    thread.join()

  atexit.register(stop)


def end_run(code: int, message: str, *, may_be_a_consequence: bool = False) -> None:
  """Prints why, and ends this process and the others; returns only where there are no others.

  Nothing is waited for, not even a checkpoint that is on its way to the disk: the others may be
  stuck in it. Earlier checkpoints stay intact.

  Args:
    code: exit code of all of them.
    message: what this one prints.
    may_be_a_consequence: where another process has failed before, its code and message count.
  """
  process = _this_process()
  if process is None:
    return
  other = _first_of_the_others(process) if may_be_a_consequence else None
  if other is not None:
    code, message = other.code, _about(other)
  _leave(process, code, message)


def is_loss_of_a_process(error: Exception) -> bool:
  """Whether an error says no more than that another process of the run is gone."""
  return "Gloo" in str(error) and "by peer" in str(error)


def _leave(process: _Process, code: int, message: str) -> None:
  _leaving.acquire()
  note = _Note(process.number, code, message.strip().rpartition("\n")[2])
  with contextlib.suppress(RuntimeError):  # the coordinator is gone: JAX itself ends the others
    process.client.key_value_set(f"{_NOTES}{note.process}", json.dumps(note), allow_overwrite=True)
  print(message.rstrip(), file=sys.stderr, flush=True)
  if process.number == 0:  # the coordinator, whose end would be all that the others learn
    deadline = time.monotonic() + _SECONDS_FOR_THE_OTHERS
    while len(_notes(process)) < process.num_processes and time.monotonic() < deadline:
      time.sleep(_SECONDS_BETWEEN_LOOKS / 10)
  sys.stdout.flush()
  os._exit(code)


def _this_process() -> _Process | None:
  """Returns this process; None where it is a run of its own, or not yet one of a run."""
  if not _is_joined.is_set():
    return None
  # There is no public way to what the processes tell each other; Orbax takes this one too.
  from jax._src.distributed import global_state as state

  return state.client and _Process(state.client, state.process_id, state.num_processes)


def _about(other: _Note) -> str:
  return f"process {other.process} has failed, so this one ends too: {other.message}"


def _first_of_the_others(process: _Process) -> _Note | None:
  return min((note for note in _notes(process) if note.process != process.number), default=None)


def _notes(process: _Process) -> list[_Note]:
  try:
    found = process.client.key_value_dir_get(_NOTES)
  except RuntimeError:
    return []
  return [_Note(*json.loads(note)) for _, note in found]
