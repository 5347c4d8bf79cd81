"""Folders that appear whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from magnifier_jax.files.whole_file import writing

_KEPT_OF_NAME = 40  # characters of a folder's name in that of its replacement


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
  """Gives the block a folder to fill, which becomes `path` when it ends well.

  Whatever happens, `path` is what it was or the new folder, and nothing else is left. A folder that
  is there is replaced whole, so the caller must know that it may be. The block's own errors of
  writing are its own to explain.

  Raises:
    WriteError: when the folder cannot be created, or cannot take its place.
  """
  name = f".{path.name[:_KEPT_OF_NAME]}.{secrets.token_hex(4)}"
  unfinished, replaced = path.with_name(f"{name}.tmp"), path.with_name(f"{name}.old")
  with writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished.mkdir()
  try:
    yield unfinished
    with writing(path):
      _take_place(unfinished, path, replaced)
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)


def _take_place(new: Path, path: Path, replaced: Path) -> None:
  if not os.path.lexists(path):
    new.rename(path)
    return
  path.rename(replaced)  # a folder with something in it cannot be renamed over
  try:
    new.rename(path)
  except OSError:
    replaced.rename(path)
    raise
  shutil.rmtree(replaced, ignore_errors=True)
