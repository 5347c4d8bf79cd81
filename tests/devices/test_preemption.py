"""SIGTERM: what it does while there is something to save, while there is nothing, and twice."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Without JAX: `poll` alone imports it, and these do not reach it.
_PROGRAM = """
import time
from magnifier_jax.devices.preemption import Preemption
preemption = Preemption()
preemption.listen()
{program}
print("ready", flush=True)
{then}
"""


def run(program: str, then: str, signals: int, repository: Path) -> tuple[int, str, str]:
  """Runs a program, sends SIGTERMs once it is ready; returns exit code, output and errors."""
  process = subprocess.Popen(
    [sys.executable, "-c", _PROGRAM.format(program=program, then=then)],
    cwd=repository,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "ready\n"
  for number in range(signals):
    if number:
      assert process.stdout.readline() == "noted\n"
    process.send_signal(signal.SIGTERM)
  out, errors = process.communicate(timeout=60)
  return process.returncode, out, errors


_WAIT = "while not preemption._received: time.sleep(0.01)\nprint('noted', flush=True)\n"
_BLOCK = "import threading; threading.Lock().__enter__(); time.sleep(60)"


def test_nothing_to_save_leaves_at_once(repository: Path):
  assert run("", _BLOCK, 1, repository) == (
    143,
    "",
    "SIGTERM: nothing that was trained is lost; the same command goes on\n",
  )


def test_main_thread_in_compiled_code_does_not_hold_it_up(repository: Path):
  # One call that lasts a minute, like a compilation; handlers in Python would wait for its end.
  program = "import hashlib"
  then = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**8)"
  assert run(program, then, 1, repository)[0] == 143


def test_something_to_save_waits_for_the_loop(repository: Path):
  code, out, errors = run("preemption.hold()", _WAIT + "print('saved')", 1, repository)
  assert (code, out, errors) == (0, "noted\nsaved\n", "")


def test_second_signal_leaves_at_once(repository: Path):
  code, _, errors = run("preemption.hold()", _WAIT + _BLOCK, 2, repository)
  assert code == 143
  assert errors.startswith("second SIGTERM: left without saving")


@pytest.mark.parametrize("signals", [1, 2])
def test_a_save_under_way_is_finished_unless_asked_twice(repository: Path, signals: int):
  seconds = 60 if signals == 2 else 0
  program = f"""
def finish():
  print("noted", flush=True)
  time.sleep({seconds})
  print("done", flush=True)

preemption.hold()
preemption.release(finish)"""
  code, out, errors = run(program, _BLOCK, signals, repository)
  assert code == 143
  assert out == ("noted\ndone\n" if signals == 1 else "")
  assert errors == "SIGTERM: nothing that was trained is lost; the same command goes on\n"


def test_what_saves_is_not_asked_once_everything_is_saved(repository: Path):
  program = """
preemption.hold()
preemption.release(lambda: print("asked", flush=True))
preemption.release()"""
  assert run(program, _BLOCK, 1, repository)[:2] == (143, "")
