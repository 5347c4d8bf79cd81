"""Opens an exported network to embed with it. An ONNX file needs neither JAX nor TensorFlow."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from magnifier_jax.export import layout
from magnifier_jax.export.packages import ExportError
from magnifier_jax.export.programs import onnx_program, onnx_session, open_program
from magnifier_jax.export.signature import Signature

_AGAIN = "export the network again with magnifier_jax.tools.export"


class ExportedNetwork:
  """A network out of a file that `tools.export` wrote.

  Attributes:
    description: the contents of `model.json`.
    image_size_hw: H and W in pixels.
    branches: {branch: its width}, in the order of the whole embedding.
    weights_sha256: of the network's weights, by `weights/digest.py`.
    thresholds: as `metrics.json` has them; None where nobody calibrated them.
  """

  def __init__(self, description: Mapping[str, Any], program: Any):
    """Puts a network together.

    Args:
      description: the contents of `model.json`.
      program: the file's input → embeddings [B, D].
    """
    self._signature = signature_from(description)
    self._program = program
    self.description = description
    self.image_size_hw = self._signature.image_size_hw
    self.branches = dict(self._signature.branches)
    self.weights_sha256: str = description["weights_sha256"]
    self.thresholds: Mapping[str, Any] | None = description["thresholds"]

  def embed_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Embeds images.

    Args:
      images: [B, H, W, 3] uint8 RGB, of the network's size.

    Returns:
      {branch: [B, D_branch] float32}: the parts of the embedding that is L2-normalised as a whole.

    Raises:
      ValueError: when the images are of another shape or dtype.
    """
    expected = (*self.image_size_hw, 3)
    if images.dtype != np.uint8 or images.shape[1:] != expected:
      raise ValueError(
        f"images must be uint8 [B, {', '.join(map(str, expected))}], got {images.dtype} "
        f"{list(images.shape)}"
      )
    return self._signature.by_branch(self._program(self._signature.to_input(images)))


def open_exported(path: Path) -> ExportedNetwork:
  """Opens an exported folder, or a `model.onnx` alone.

  Args:
    path: of the folder; of its files the ONNX one is taken where there are both. An ONNX file alone
      says in its metadata what `model.json` says.

  Raises:
    ExportError: when it is not what `tools.export` wrote, or was changed since, or what runs it is
      not installed.
  """
  if path.is_file() and path.suffix == ".onnx":
    return _open_onnx_alone(path)
  if path.is_file() and path.suffix == ".stablehlo":
    path = path.parent
  if not path.is_dir():
    raise ExportError(f"{path}: no folder of an exported network, nor a {layout.ONNX_FILE}")
  description = read_description(path)
  files = [path / name for name in layout.NETWORK_FILES.values() if (path / name).exists()]
  if not files:
    raise ExportError(f"{path}: neither {' nor '.join(layout.NETWORK_FILES.values())}; {_AGAIN}")
  _check_unchanged(files[0], description)
  return ExportedNetwork(description, open_program(files[0]))


def read_description(folder: Path) -> dict[str, Any]:
  """Reads the `model.json` of an exported folder.

  Raises:
    ExportError: when there is none, or it is not one of `tools.export`.
  """
  file = folder / layout.DESCRIPTION_FILE
  try:
    content = json.loads(file.read_text())
  except FileNotFoundError as error:
    raise ExportError(
      f"{folder}: no exported network: there is no {layout.DESCRIPTION_FILE} in it"
    ) from error
  except (OSError, ValueError) as error:
    raise ExportError(f"{file}: cannot be read ({error}); {_AGAIN}") from error
  return _checked(content, str(file))


def signature_from(description: Mapping[str, Any]) -> Signature:
  """Returns the signature that a `model.json` describes."""
  given = description["input"]
  return Signature(
    image_size_hw=tuple(given["size_hw"]),
    pixel_mean=tuple(given["mean"]),
    pixel_std=tuple(given["std"]),
    input=given["dtype"],
    branches={branch["name"]: branch["width"] for branch in description["output"]["branches"]},
  )


def _open_onnx_alone(file: Path) -> ExportedNetwork:
  session = onnx_session(file, str(file), on_cpu=False)
  stored = session.get_modelmeta().custom_metadata_map.get(layout.METADATA_KEY)
  if stored is None:
    raise ExportError(
      f"{file}: not written by magnifier_jax.tools.export: its metadata have no "
      f"{layout.METADATA_KEY!r}"
    )
  return ExportedNetwork(_checked(json.loads(stored), str(file)), onnx_program(session))


def _checked(content: Any, name: str) -> dict[str, Any]:
  if not isinstance(content, dict) or content.get("format") != layout.FORMAT:
    raise ExportError(f"{name}: not of an exported network: it has no format {layout.FORMAT!r}")
  if content.get("version") != layout.VERSION:
    raise ExportError(
      f"{name}: of version {content.get('version')}; this program reads {layout.VERSION}; {_AGAIN}"
    )
  return content


def _check_unchanged(file: Path, description: Mapping[str, Any]) -> None:
  with file.open("rb") as stream:
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
  if digest != description["files"].get(file.name, {}).get("sha256"):
    raise ExportError(
      f"{file}: not the file that {layout.DESCRIPTION_FILE} beside it describes: it is damaged, or "
      f"of another export; {_AGAIN}"
    )
