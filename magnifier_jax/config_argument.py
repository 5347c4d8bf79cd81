"""`--config` on a command line: what is wrong with it in one line, and loading it in the tools."""

import ast

from absl import flags
from ml_collections import config_flags

from magnifier_jax.config import Config, ConfigError


def load_config(file: str, overrides: list[str]) -> Config:
  """Loads and validates a config file; switches JAX to 64 bits where it asks for float64.

  Args:
    file: path, with the variant after a colon.
    overrides: arguments `--config.field=value`.

  Raises:
    ConfigError: on a file, field or value that is wrong, or on another argument.
  """
  argv = ["tool", f"--config={file}", *overrides]
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv, lock_config=True)
  try:
    rest = values(argv)[1:]
    # A file that is not there is reported at the first use of its values.
    config = values.config.to_dict()
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    raise ConfigError(f"--config: {last_line(error)}") from error
  if rest:
    raise ConfigError(f"unexpected argument {rest[0]!r}; fields look like --config.field=value")
  validated = Config.from_config_dict(config)
  if validated.dtype == "float64":
    import jax

    jax.config.update("jax_enable_x64", True)
  return validated


def last_line(error: Exception) -> str:
  """Returns the line that matters of an error of config_flags.

  It puts a traceback, or the name of the field once more, before that line.
  """
  message = str(error.args[-1])
  if message.startswith(("'", '"')):
    message = ast.literal_eval(message)  # the text of an error inside another
  return message.strip().splitlines()[-1].strip().removeprefix("ValueError: ")
