"""Files that appear whole or not at all, and the line that says why one cannot be written."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magnifier_jax.errors import UserError

# No space left, a quota that is used up, or a limit on the size of a file.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MORE_SPACE = "free some space there, or have your quota raised"
_ELSEWHERE = "name another place"

_KEPT_OF_NAME = 40  # characters of a file's name in that of its replacement; names end at 255 bytes


class WriteError(UserError):
  """A file or folder cannot be written."""


@contextlib.contextmanager
def writing(path: Path, elsewhere: str = _ELSEWHERE) -> Iterator[None]:
  """Makes one line of an error of the system's that ends the block.

  Args:
    path: that the block writes.
    elsewhere: how to write it to another place.

  Raises:
    WriteError: names `path`, what is wrong and the mend.
  """
  try:
    yield
  except OSError as error:
    reason = error.strerror or str(error)
    mend = MORE_SPACE if error.errno in FULL_DISK else elsewhere
    raise WriteError(f"{path}: cannot be written: {reason}; {mend}") from error


@contextlib.contextmanager
def replacing(path: Path, elsewhere: str = _ELSEWHERE) -> Iterator[Path]:
  """Gives the block a file to write, which takes the place of `path` when it ends well.

  Whatever happens, `path` is what it was or the new file, and nothing else is left. The block's
  file lies beside it, has the same suffix, and a name that nobody else's file has.

  Raises:
    WriteError: when it cannot be written.
  """
  name = f".{path.stem[:_KEPT_OF_NAME]}.{secrets.token_hex(4)}.tmp{path.suffix}"
  unfinished = path.with_name(name)
  try:
    with writing(path, elsewhere):
      yield unfinished
      os.replace(unfinished, path)
  finally:
    with contextlib.suppress(OSError):
      unfinished.unlink()


def write_bytes(path: Path, content: bytes, elsewhere: str = _ELSEWHERE) -> None:
  """Writes a file, whole or not at all.

  Raises:
    WriteError: when it cannot be written.
  """
  with replacing(path, elsewhere) as unfinished:
    unfinished.write_bytes(content)


def write_text(path: Path, text: str) -> None:
  """Writes a file in UTF-8, whole or not at all; raises as `write_bytes`."""
  write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
  """Writes a file that people can read too, whole or not at all; raises as `write_bytes`."""
  write_text(path, json.dumps(content, indent=2) + "\n")


def make_folder(folder: Path, elsewhere: str = _ELSEWHERE) -> None:
  """Creates a folder, and those above it, unless it is there.

  Raises:
    WriteError: when it cannot be created.
  """
  with writing(folder, elsewhere):
    folder.mkdir(parents=True, exist_ok=True)


def check_writable(path: Path) -> None:
  """Finds out before the work whether a file can be written after it.

  Raises:
    WriteError: when its folder cannot be written to, or is not there.
  """
  with writing(path):
    if path.is_dir():
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    probe = path.with_name(f".{path.stem[:_KEPT_OF_NAME]}.{secrets.token_hex(4)}.probe")
    probe.write_bytes(b"")
    probe.unlink()
