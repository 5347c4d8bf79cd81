"""Where compiled programs are kept between runs, so that only the first one waits for XLA."""

import os
import tempfile
from pathlib import Path

import jax
from absl import logging

from magnifier_jax.devices.user_cache import cache_directory
from magnifier_jax.errors import UserError
from magnifier_jax.files.user_path import PathError

NONE = "none"


class CompilationCacheError(UserError):
  """The folder of `--compilation_cache` cannot be written."""


def use_compilation_cache(flag: str | None) -> None:
  """Lets JAX keep what it compiles; before anything is compiled.

  JAX writes from process 0 only, and an entry that it cannot read is compiled again, so processes
  and runs can share a folder.

  Args:
    flag: the folder, which may be `gs://…`; 'none' keeps nothing; None takes the one of
      `JAX_COMPILATION_CACHE_DIR`, or else `xla` in the user's cache.

  Raises:
    CompilationCacheError: when a folder that `flag` names cannot be written. Without the user's
      own cache, which nobody asked for, the run goes on.
  """
  if flag is None and os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    return  # JAX reads it itself
  if flag == NONE:
    jax.config.update("jax_enable_compilation_cache", False)
    return
  try:
    folder = flag or str(cache_directory() / "xla")
  except PathError as error:
    logging.warning("Nothing compiled is kept: %s", error)
    return
  if "://" not in folder:
    folder = os.path.abspath(os.path.expanduser(folder))
    problem = _why_not_writable(Path(folder))
    if problem and flag:
      raise CompilationCacheError(
        f"--compilation_cache: cannot write in {folder} ({problem}); name another folder, or 'none'"
      )
    if problem:
      logging.warning("Nothing compiled is kept: cannot write in %s (%s)", folder, problem)
      return
  jax.config.update("jax_compilation_cache_dir", folder)


def _why_not_writable(folder: Path) -> OSError | None:
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      return None
  except OSError as error:
    return error
