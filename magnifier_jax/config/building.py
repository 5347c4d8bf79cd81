"""From the nested mapping of a config file to frozen dataclasses: names, types and ranges."""

import ast
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from magnifier_jax.errors import UserError

Names = str | tuple[str, ...]  # one as a string, several as a tuple


class ConfigError(UserError):
  """A config field is unknown, missing, of the wrong type, or out of range."""


class Range(NamedTuple):
  """Closed bounds on a number, or on each number of a tuple."""

  low: float = -math.inf
  high: float = math.inf

  def __str__(self) -> str:
    if self.high == math.inf:
      return f"at least {self.low}"
    return f"from {self.low} to {self.high}"


def build(cls: type, values: Mapping[str, Any], path: str) -> Any:
  """Builds a dataclass from a mapping.

  Args:
    cls: whose annotations say what is allowed; a field may be a dataclass itself.
    values: exactly its fields.
    path: the name of the group in error messages.

  Raises:
    ConfigError: on the first unknown, missing, wrongly typed or out-of-range field; the message
      starts with its dotted name.
  """
  if not hasattr(values, "items"):
    raise ConfigError(f"{path}: expected a group of fields, got {values!r}")
  hints = typing.get_type_hints(cls, include_extras=True)
  for name in values:
    if name not in hints:
      raise ConfigError(f"{path}.{name}: no such field{suggestion(name, hints)}")
  missing = [name for name in hints if name not in values]
  if missing:
    raise ConfigError(f"{path}.{missing[0]}: missing; the config file must set it")
  fields = {name: _convert(hint, values[name], f"{path}.{name}") for name, hint in hints.items()}
  try:
    return cls(**fields)
  except ConfigError as error:
    raise ConfigError(f"{path}.{error}") from None


def _convert(hint: Any, value: Any, path: str) -> Any:
  """Returns `value` as the annotated type, or raises a `ConfigError` that starts with `path`."""
  bounds = None
  if typing.get_origin(hint) is Annotated:
    hint, bounds = typing.get_args(hint)
  if dataclasses.is_dataclass(hint):
    return build(hint, value, path)
  origin = typing.get_origin(hint)
  if origin is Literal:
    choices = typing.get_args(hint)
    if value not in choices or isinstance(value, bool) != isinstance(choices[0], bool):
      raise ConfigError(f"{path}: must be one of {', '.join(map(str, choices))}; got {value!r}")
    return value
  if origin is types.UnionType:
    return _convert_names(value, path)
  if origin is tuple:
    return _convert_tuple(typing.get_args(hint), bounds, value, path)
  return _convert_scalar(hint, bounds, value, path)


def _convert_tuple(element_types: tuple, bounds: Range | None, value: Any, path: str) -> tuple:
  if not isinstance(value, list | tuple):
    raise ConfigError(f"{path}: must be a tuple, got {value!r}")
  if element_types[-1] is Ellipsis:
    element_types = element_types[:1] * len(value)
  if len(value) != len(element_types):
    raise ConfigError(f"{path}: must have {len(element_types)} values, got {value!r}")
  return tuple(
    _convert_scalar(kind, bounds, element, path)
    for kind, element in zip(element_types, value, strict=True)
  )


def _convert_names(value: Any, path: str) -> Names:
  """Returns one name as it is and several as a tuple; a command line gives a tuple as its text."""
  names = value
  if isinstance(value, str) and value.strip().startswith(("(", "[")):
    try:
      names = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
      names = None
  if isinstance(names, str):
    names = (names,)
  is_sequence = isinstance(names, list | tuple) and len(names) > 0
  if not is_sequence or not all(isinstance(name, str) and name for name in names):
    raise ConfigError(
      f"{path}: must be a name, or a tuple of names as ('market1501', 'msmt17'); got {value!r}"
    )
  return names[0] if len(names) == 1 else tuple(names)


def _convert_scalar(kind: type, bounds: Range | None, value: Any, path: str) -> Any:
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
    raise ConfigError(f"{path}: must be of type {kind.__name__}, got {value!r}")
  if bounds is not None and not bounds.low <= value <= bounds.high:
    raise ConfigError(f"{path}: must be {bounds}, got {value!r}")
  return value


def suggestion(name: str, known: Mapping[str, Any]) -> str:
  """Returns the end of a message about an unknown name: what may be meant."""
  close = difflib.get_close_matches(name, known, n=1)
  return f"; did you mean {close[0]}?" if close else f"; it has {', '.join(known)}"
