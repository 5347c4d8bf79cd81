"""A training run in a process of its own: its memory, and its failures, end with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from magnifier_jax.files.whole_file import make_folder, writing

# A process that is told to stop may save first.
_SECONDS_TO_STOP = 120


def run_training(arguments: Sequence[str], log: Path, on_line: Callable[[str], None]) -> int:
  """Runs `python -m magnifier_jax.main` and waits for its end.

  What interrupts the wait, Ctrl-C for one, stops the process before it goes on.

  Args:
    arguments: of the command.
    log: gets the command and what it prints, after what is there.
    on_line: is called with every line that is printed, without its end.

  Returns:
    The exit code; negative for the signal that ended the process.

  Raises:
    WriteError: when the log cannot be written; the process is stopped.
  """
  command = [sys.executable, "-m", "magnifier_jax.main", *arguments]
  make_folder(log.parent)
  with writing(log), log.open("a", encoding="utf-8") as file:
    file.write(f"$ {' '.join(command)}\n")
    file.flush()
    process = subprocess.Popen(
      command,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      encoding="utf-8",
      errors="replace",
      start_new_session=True,  # a Ctrl-C reaches it through `_stop` alone, once
    )
    try:
      for line in process.stdout:
        file.write(line)
        file.flush()
        on_line(line.rstrip("\n"))
      return process.wait()
    except BaseException:
      file.write(_stop(process))
      raise
    finally:
      process.stdout.close()


def _stop(process: subprocess.Popen) -> str:
  """Ends a process, kindly at first; returns the last that it printed."""
  process.terminate()
  try:
    # It reads on, or a full pipe would hold the process up.
    last, _ = process.communicate(timeout=_SECONDS_TO_STOP)
  except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)  # and what it started: the session is its own
    last, _ = process.communicate()
  return last
