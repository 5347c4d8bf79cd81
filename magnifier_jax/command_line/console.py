"""What a program prints: never in the way of what it does.

A run's results are in files. A console that knows no dashes, a pipe that was closed and a log on a
full disk lose words, and nothing else.
"""

import codecs
import errno
import io
import logging
import os
import sys
from typing import Any, NoReturn

_PLAIN = "magnifier_jax.plain"  # name of the error handler
_IN_ASCII = {"–": "-", "−": "-", "×": "x", "±": "+-", "…": "...", "→": "->", "✗": "x", "≥": ">="}


class Unfailing:
  """A stream that notes the first failure to write, and goes on.

  Attributes:
    failure: the first, or None.
  """

  def __init__(self, stream: io.TextIOBase):
    self._stream = stream
    self.failure: OSError | ValueError | None = None

  def write(self, text: str) -> int:
    """Writes what can be written."""
    try:
      return self._stream.write(text)
    except (OSError, ValueError) as error:  # ValueError: it was closed
      self.failure = self.failure or error
      return len(text)

  def flush(self) -> None:
    """Brings to the other side what can be brought."""
    try:
      self._stream.flush()
    except (OSError, ValueError) as error:
      self.failure = self.failure or error

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


def print_without_failing() -> None:
  """Keeps the process's output from ending it; to be called first in a program."""
  codecs.register_error(_PLAIN, _plain)
  sys.stdout, sys.stderr = _unfailing(sys.stdout), _unfailing(sys.stderr)


def silence_libraries() -> None:
  """Leaves out what libraries say of things that they do without, such as a home to write in."""
  logging.getLogger("matplotlib").setLevel(logging.ERROR)


def leave_at_once(message: str, exit_code: int) -> NoReturn:
  """Prints why, and ends the process without waiting for anything.

  After a save that failed Orbax's threads would complain for pages while the process ends.
  """
  print(message, file=sys.stderr)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(exit_code)


def lost_output() -> str | None:
  """Returns why something that was printed is lost; None when nothing is.

  A reader that has read enough, as `head` does, has lost nothing.
  """
  if sys.stdout is None:  # it was closed before the program began
    return None
  sys.stdout.flush()
  failure = getattr(sys.stdout, "failure", None)
  if failure is None or getattr(failure, "errno", None) == errno.EPIPE:
    return None
  return getattr(failure, "strerror", None) or str(failure)


def _unfailing(stream: Any) -> Any:
  if stream is None or isinstance(stream, Unfailing):
    return stream
  if isinstance(stream, io.TextIOWrapper):
    stream.reconfigure(errors=_PLAIN)
  return Unfailing(stream)


def _plain(error: UnicodeError) -> tuple[str, int]:
  """Returns what stands in for characters that a console has not, and where to go on."""
  if not isinstance(error, UnicodeEncodeError):
    raise error
  characters = error.object[error.start : error.end]
  plain = "".join(
    _IN_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters
  )
  return plain, error.end
