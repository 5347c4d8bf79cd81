"""What is printed never ends what is done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from magnifier_jax.command_line.console import lost_output, print_without_failing
print_without_failing()
for _ in range(2000):
  print("rank1 – 82.4 ± 0.1 % → é \\udcff", flush=True)
print("done", lost_output(), file=sys.stderr)
"""


def run(repository: Path, **options) -> subprocess.CompletedProcess:
  """Prints a few characters that many consoles have not."""
  environment = {"PYTHONPATH": str(repository), **options.pop("env", {})}
  return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, **options)


def test_a_console_in_ascii(repository: Path):
  done = run(repository, env={"PYTHONIOENCODING": "ascii"}, capture_output=True)
  assert done.stdout.splitlines()[0] == rb"rank1 - 82.4 +- 0.1 % -> \xe9 \udcff"
  assert done.stderr == b"done None\n"


def test_another_encoding_keeps_what_it_has(repository: Path):
  done = run(repository, env={"PYTHONIOENCODING": "latin-1"}, capture_output=True)
  assert done.stdout.splitlines()[0] == b"rank1 - 82.4 \xb1 0.1 % -> \xe9 \\udcff"


def test_a_full_disk_is_known_afterwards(repository: Path):
  with open("/dev/full", "w") as full:
    done = run(repository, stdout=full, stderr=subprocess.PIPE)
  assert done.stderr == b"done No space left on device\n"


def test_a_reader_that_has_read_enough(repository: Path):
  receiver, sender = os.pipe()
  os.close(receiver)
  done = run(repository, stdout=sender, stderr=subprocess.PIPE)
  os.close(sender)
  assert done.stderr == b"done None\n"


def test_no_console_at_all(repository: Path):
  command = f"exec {sys.executable} -c '{PROGRAM}' >&-"
  done = subprocess.run(
    ["sh", "-c", command.replace("'rank1", '"rank1')],
    env={"PYTHONPATH": str(repository)},
    stderr=subprocess.PIPE,
    check=True,
  )
  assert done.stderr == b"done None\n"


@pytest.mark.parametrize("target", ["/dev/full", None])
def test_a_tool_whose_result_cannot_be_printed_says_so(repository: Path, target: str | None):
  program = (
    "from magnifier_jax.tools.program import run_tool\nrun_tool(lambda _: 'the table' * 9999)"
  )
  with open(target or os.devnull, "w") as out:
    done = subprocess.run(
      [sys.executable, "-c", program],
      cwd=repository,
      stdout=out,
      stderr=subprocess.PIPE,
      text=True,
      check=False,
    )
  expected = "error: standard output: No space left on device; what was printed is cut short\n"
  assert (done.returncode, done.stderr) == ((2, expected) if target else (0, ""))
