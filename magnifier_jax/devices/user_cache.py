"""The user's cache: what later runs on this machine need not download or compile again."""

import os
from pathlib import Path


def cache_directory() -> Path:
  """Returns `magnifier_jax` in `$XDG_CACHE_HOME` or `~/.cache`."""
  base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(base) / "magnifier_jax"
