"""The config files that come with the package."""

from pathlib import Path

from magnifier_jax.errors import UserError


class OwnConfigsError(UserError):
  """The package has lost its config files."""


def configs_folder() -> Path:
  """Returns the folder `configs`: in a checkout beside the package, installed inside it.

  Raises:
    OwnConfigsError: when it is in neither place.
  """
  package = Path(__file__).parents[1]
  for folder in (package / "configs", package.parent / "configs"):
    if (folder / "cuhk03.py").exists():
      return folder
  raise OwnConfigsError(
    f"no folder `configs` in or beside {package}; install magnifier_jax again, or put the folder "
    "of its repository there"
  )
