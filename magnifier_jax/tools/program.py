"""What the tools' command lines share: the parser, and what ends the process with which code."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from magnifier_jax.command_line.console import (
  leave_at_once,
  lost_output,
  print_without_failing,
  silence_libraries,
)
from magnifier_jax.errors import UserError
from magnifier_jax.files.disk_space import DiskFullError


def make_parser(tool: str, description: str) -> argparse.ArgumentParser:
  """Returns a parser that shows `description`, a module's docstring, line for line."""
  return argparse.ArgumentParser(
    prog=f"python -m magnifier_jax.tools.{tool}",
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
  """Adds the option `--checkpoint`, for tools that open a workdir."""
  parser.add_argument(
    "--checkpoint",
    choices=("latest", "best"),
    default="latest",
    help="which of a workdir's; best is by mAP (%(default)s)",
  )


class OverwriteError(UserError):
  """A file that a tool would write is there already."""


def check_new(file: Path, overwrite: bool, written_by: str = "") -> None:
  """Keeps a tool from replacing a file that is not its own.

  Args:
    file: that the tool is going to write.
    overwrite: whether the user has said that it may be replaced.
    written_by: text that a file which the tool wrote has near its beginning; '' is none.

  Raises:
    OverwriteError: when it is there.
  """
  if overwrite or not os.path.lexists(file):
    return
  if written_by and file.is_file():
    with file.open("rb") as stream:
      if written_by.encode() in stream.read(4096):
        return
  raise OverwriteError(f"{file}: is there already; --overwrite replaces it")


def run_tool(
  main: Callable[[list[str]], int | str], when_interrupted: str = "interrupted"
) -> NoReturn:
  """Runs a tool on the process's arguments and ends the process.

  Args:
    main: returns an exit code, or its results as text, to print. A `UserError` becomes one line and
      exit code 2, and so does text that cannot be printed.
    when_interrupted: is printed after Ctrl-C, with exit code 130.
  """
  print_without_failing()
  silence_libraries()
  try:
    result = main(sys.argv[1:])
  except DiskFullError as error:
    leave_at_once(f"error: {error}", 2)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print(f"\n{when_interrupted}", file=sys.stderr)
    sys.exit(130)
  if isinstance(result, str):
    print(result)
    result = 0
    if reason := lost_output():
      print(f"error: standard output: {reason}; what was printed is cut short", file=sys.stderr)
      result = 2
  sys.exit(result)
