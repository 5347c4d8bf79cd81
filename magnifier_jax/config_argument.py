"""`--config` on a command line: where its file is, which value of a field counts, what is wrong."""

import ast
import contextlib
import re
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from magnifier_jax.config import Config, ConfigError, check_field
from magnifier_jax.files.own_configs import configs_folder
from magnifier_jax.files.user_path import user_path

_OWN_CONFIGS = "configs"
_FIELD = re.compile(r"--?(?:no)?config\.([^=]+)")
_FILE = re.compile(r"(--?config)(?:=(.*))?")


def load_config(file: str, overrides: list[str]) -> Config:
  """Loads and validates a config file; switches JAX to 64 bits where it asks for float64.

  Args:
    file: path, with the variant after a colon.
    overrides: arguments `--config.field=value`.

  Raises:
    ConfigError: on a file, field or value that is wrong, or on another argument.
  """
  argv = normalized(["tool", f"--config={file}", *overrides])
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv, lock_config=True)
  try:
    rest = values(argv)[1:]
    # A file that cannot be read is reported at the first use of its values.
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


def normalized(argv: Sequence[str]) -> list[str]:
  """Returns a command line that config_flags takes as users mean it.

  The config file is named where it lies, and of several values of a field the last is left:
  config_flags would put those of a tuple together.

  Args:
    argv: with the program's name.

  Raises:
    ConfigError: when there is no such file or field.
  """
  words = [_with_found_file(group) for group in _groups(argv)]
  names = [_field(group) for group in words]
  for name in filter(None, names):
    check_field(name)
  kept = [
    group for i, group in enumerate(words) if names[i] is None or names[i] not in names[i + 1 :]
  ]
  return [word for group in kept for word in group]


def _groups(argv: Sequence[str]) -> list[list[str]]:
  """Returns the words of a command line, a value that follows its option in one group with it."""
  groups: list[list[str]] = []
  takes_value = False
  for word in argv:
    is_option = word.startswith("--") or bool(_FIELD.match(word) or _FILE.fullmatch(word))
    if takes_value and not is_option:
      groups[-1].append(word)
    else:
      groups.append([word])
    is_ours = _FIELD.match(word) or _FILE.fullmatch(word)
    takes_value = bool(is_ours) and "=" not in word
  return groups


def _field(group: Sequence[str]) -> str | None:
  match = _FIELD.match(group[0])
  return match and match[1]


def _with_found_file(group: list[str]) -> list[str]:
  match = _FILE.fullmatch(group[0])
  file = match and (match[2] if match[2] is not None else "".join(group[1:]))
  return [f"{match[1]}={_found(file)}"] if file else group


def _found(file: str) -> str:
  """Returns the path of a config file, with the variant that it had.

  `configs/…` that is not below the current folder is ours: in a checkout it lies beside the
  package, installed it lies inside.
  """
  name, colon, variant = file.partition(":")
  path = user_path(name)
  if not path.exists() and path.parts[:1] == (_OWN_CONFIGS,):
    path = configs_folder().parent / path
  if not path.exists():
    own = sorted(f"{_OWN_CONFIGS}/{config.name}" for config in configs_folder().glob("*.py"))
    raise ConfigError(f"--config: there is no file {name}; ours are {', '.join(own)}")
  return f"{path}{colon}{variant}"


def last_line(error: Exception) -> str:
  """Returns the line that matters of an error of config_flags.

  It puts a traceback, or the name of the field once more, before that line.
  """
  message = str(error.args[-1])
  with contextlib.suppress(ValueError, SyntaxError):
    message = str(ast.literal_eval(message))  # the text of an error inside another
  return message.strip().splitlines()[-1].strip().removeprefix("ValueError: ")
