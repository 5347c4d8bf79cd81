"""Paths as users write them."""

from pathlib import Path

from magnifier_jax.errors import UserError


class PathError(UserError):
  """A path that means nothing on this machine."""


def user_path(text: str) -> Path:
  """Returns a path of a command line or a config; `~` is a home, as in a shell.

  Shells leave `--workdir=~/run` as it is.

  Raises:
    PathError: when there is no such home.
  """
  try:
    return Path(text).expanduser()
  except RuntimeError as error:
    raise PathError(f"{text}: no home is known of that user; write the whole path") from error
