"""A process that calls one function for another process.

It starts as a program of its own. `multiprocessing` would run the user's script again in it, which
not every script survives.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any


class ReadingProcess:
  """Calls a function in a process of its own; for use by one thread."""

  def __init__(self, function: Callable[[Any, Any], Any], first: Any):
    """Starts the process.

    Args:
      function: of a module; takes `first` and the argument of `call`.
      first: can be pickled.
    """
    self._process = subprocess.Popen(
      [sys.executable, "-m", __name__],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    self._send((function, first))

  def call(self, second: Any) -> Any:
    """Returns the function's result.

    Raises:
      Exception: what the function raised.
      RuntimeError: when the process has ended.
    """
    try:
      self._send(second)
      result, error = pickle.load(self._process.stdout)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError) as ended:
      raise RuntimeError(
        f"a process that reads images has ended with exit code {self._process.wait()}"
      ) from ended
    if error is not None:
      raise error
    return result

  def kill(self) -> None:
    """Ends the process, whatever it does; a call of another thread raises."""
    self._process.kill()

  def close(self) -> None:
    """Ends the process, and frees what belongs to it."""
    self._process.kill()
    self._process.wait()
    self._process.stdout.close()
    with contextlib.suppress(BrokenPipeError):  # it was killed before it took everything
      self._process.stdin.close()

  def _send(self, value: Any) -> None:
    pickle.dump(value, self._process.stdin, pickle.HIGHEST_PROTOCOL)
    self._process.stdin.flush()


def main() -> None:
  """Serves until its standard input ends."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too, but ends its owner
  requests = sys.stdin.buffer
  # What a library prints must not get among the answers.
  with os.fdopen(os.dup(1), "wb") as answers:
    os.dup2(2, 1)
    function, first = pickle.load(requests)
    while True:
      try:
        second = pickle.load(requests)
      except EOFError:
        return
      try:
        answer = function(first, second), None
      except Exception as error:
        answer = None, error
      pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
      answers.flush()


if __name__ == "__main__":
  main()
