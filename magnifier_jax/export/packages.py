"""The packages that only an exported network needs, and the line that says how to get them."""

import importlib
from types import ModuleType

from magnifier_jax.errors import UserError


class ExportError(UserError):
  """A network cannot be exported as it was asked for, or an exported one cannot be opened."""


def import_onnx() -> ModuleType:
  """Returns `onnx`, which writes and reads graphs.

  Raises:
    ExportError: when it is not installed.
  """
  return _import("onnx")


def import_onnxruntime() -> ModuleType:
  """Returns `onnxruntime`, which runs graphs.

  Raises:
    ExportError: when it is not installed.
  """
  runtime = _import("onnxruntime")
  runtime.set_default_logger_severity(3)  # errors; what it warns of nobody can mend
  return runtime


def _import(name: str) -> ModuleType:
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ExportError(
      f"{name} is not installed; pip install 'magnifier-jax[onnx]', or pip install onnx onnxruntime"
    ) from error
