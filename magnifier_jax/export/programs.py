"""Exported files as functions of a batch: ONNX through onnxruntime, StableHLO through JAX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from magnifier_jax.export.packages import ExportError, import_onnxruntime
from magnifier_jax.export.signature import INPUT_NAME, OUTPUT_NAME

# TF32, the default, would give embeddings that are 1e-3 from those of a gallery made elsewhere.
_ON_GPU = (("CUDAExecutionProvider", {"use_tf32": "0"}),)

# The file's input for B images → embeddings [B, D] float32.
Program = Callable[[np.ndarray], np.ndarray]


def open_program(file: Path, on_cpu: bool = False) -> Program:
  """Opens an exported file by its suffix.

  Args:
    file: `.onnx` or `.stablehlo`.
    on_cpu: whether to leave accelerators alone.

  Raises:
    ExportError: when it is no such file, or what runs it is not installed.
  """
  if file.suffix == ".onnx":
    return onnx_program(onnx_session(file, str(file), on_cpu))
  return _open_stablehlo(file, on_cpu)


def onnx_session(model: Path | bytes, name: str, on_cpu: bool) -> Any:
  """Opens an ONNX file, or what one holds, in onnxruntime.

  Args:
    model: to be opened.
    name: what an error is about.
    on_cpu: whether to leave accelerators alone.

  Raises:
    ExportError: when it does not run here, or onnxruntime is not installed.
  """
  runtime = import_onnxruntime()
  available = [] if on_cpu else runtime.get_available_providers()
  providers = [(name, options) for name, options in _ON_GPU if name in available]
  providers.append("CPUExecutionProvider")
  try:
    return runtime.InferenceSession(model, providers=providers)
  except Exception as error:  # onnxruntime's exceptions have no common base
    reason = str(error).partition("\n")[0]
    raise ExportError(f"{name}: not an ONNX file that runs here: {reason}") from error


def onnx_program(session: Any) -> Program:
  """Returns an `onnxruntime.InferenceSession` as a function."""

  def run(images: np.ndarray) -> np.ndarray:
    (embeddings,) = session.run([OUTPUT_NAME], {INPUT_NAME: images})
    return embeddings

  return run


def _open_stablehlo(file: Path, on_cpu: bool) -> Program:
  # Not above: an ONNX file needs no JAX.
  import jax
  import jax.export

  try:
    exported = jax.export.deserialize(bytearray(file.read_bytes()))
  except Exception as error:  # a damaged file raises almost anything
    reason = str(error).partition("\n")[0]
    raise ExportError(
      f"{file}: not a StableHLO file that this version of JAX reads: {reason}"
    ) from error
  device = jax.devices("cpu" if on_cpu else None)[0]
  call = jax.jit(exported.call)

  def run(images: np.ndarray) -> np.ndarray:
    return np.asarray(call(jax.device_put(_padded(images), device)))[: len(images)]

  return run


def _padded(images: np.ndarray) -> np.ndarray:
  """Returns a batch of 1, 2, 4, 8, … images: every other size would be compiled too."""
  missing = (1 << (len(images) - 1).bit_length()) - len(images)
  return np.pad(images, [(0, missing), *[(0, 0)] * (images.ndim - 1)])
