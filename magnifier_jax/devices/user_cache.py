"""The user's cache: what later runs on this machine need not download or compile again."""

import os
from pathlib import Path

from magnifier_jax.files.user_path import user_path


def cache_directory() -> Path:
  """Returns `magnifier_jax` in `$XDG_CACHE_HOME` or `~/.cache`.

  Raises:
    PathError: when the user has no home.
  """
  return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "magnifier_jax"
