"""One side of a comparison in a process of its own, which waits on a pipe between its turns.

So neither side's threads, memory or environment touch the other's, and its peak memory is its own.
"""

import contextlib
import importlib
import multiprocessing
import os
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from magnifier_jax.errors import UserError


class SideError(Exception):
  """A side failed; the message is all that its process had to say."""


class Worker:
  """Calls the methods of an object that lives in another process.

  Args:
    name: for messages, e.g. 'PyTorch'.
    factory: 'module:Class'; a name, because the caller must not import either framework.
    arguments: of the class; they and all results are pickled.
    environment: variables set before the module is imported.
  """

  def __init__(
    self, name: str, factory: str, *arguments: Any, environment: Mapping[str, str] | None = None
  ):
    self.name = name
    context = multiprocessing.get_context("spawn")  # a fork of a threaded process can hang
    self._connection, theirs = context.Pipe()
    self._process = context.Process(
      target=_serve, args=(theirs, factory, arguments, dict(environment or {}))
    )
    self._process.start()
    theirs.close()

  def __enter__(self) -> "Worker":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def close(self) -> None:
    """Ends the process, after what it is doing."""
    self._connection.close()  # it sees the end of its pipe, and leaves
    self._process.join()

  def call(self, method: str, *arguments: Any) -> Any:
    """Returns what a method of the object returns.

    Raises:
      UserError: what the user can mend, raised there.
      SideError: for everything else, also when the process has ended.
    """
    try:
      self._connection.send((method, arguments))
      is_mendable, message, result = self._connection.recv()
    except (EOFError, OSError):
      self._process.join()
      code = self._process.exitcode
      # Linux ends a process with signal 9 when memory runs out.
      reason = "it was killed; the memory may be too small" if code == -9 else f"exit code {code}"
      raise SideError(f"the process of {self.name} ended: {reason}") from None
    if message is None:
      return result
    raise UserError(message) if is_mendable else SideError(f"{self.name} failed:\n{message}")


def _serve(
  connection: Connection, factory: str, arguments: tuple, environment: dict[str, str]
) -> None:
  """Answers calls until the other end closes."""
  os.environ.update(environment)
  module, _, name = factory.partition(":")
  side = None
  # Closing, or Ctrl-C, ends the pipe or this process; neither is worth a traceback.
  with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
    while True:
      method, call_arguments = connection.recv()
      try:
        if side is None:
          side = getattr(importlib.import_module(module), name)(*arguments)
        result = (False, None, getattr(side, method)(*call_arguments))
      except UserError as error:
        result = (True, str(error), None)
      except Exception:
        result = (False, traceback.format_exc(), None)
      connection.send(result)
