"""What embedding needs of a network, and the one place that opens a workdir or an exported one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from magnifier_jax.errors import UserError

_EXPORTED = ("model.onnx", "model.stablehlo")
_GALLERY = "manifest.json"


class NetworkError(UserError):
  """A network cannot be opened."""


class EmbeddingNetwork(Protocol):
  """A trained network, wherever it runs.

  Attributes:
    description: which network it is, for people: a sentence, or what `model.json` says.
    image_size_hw: H and W in pixels of the images that it takes.
    branches: {branch: D_branch}, in their order in the whole embedding.
    weights_sha256: of its weights, by `weights/digest.py`.
    thresholds: as in `metrics.json`; None where nobody calibrated them.
  """

  description: str | Mapping[str, Any]
  image_size_hw: tuple[int, int]
  branches: Mapping[str, int]
  weights_sha256: str
  thresholds: Mapping[str, Any] | None

  def embed_batch(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """Embeds images.

    Args:
      images: [B, H, W, 3] uint8 RGB, of the network's size.

    Returns:
      {branch: [B, D_branch] float32}, not normalised.
    """
    ...


def name_of(network: EmbeddingNetwork) -> str:
  """Returns which network it is, in a line for people."""
  known = network.description
  if isinstance(known, str):
    return known
  return f"{known.get('name', 'a network')}, step {known.get('step', '?')}, exported"


def open_network(
  source: Path, checkpoint: Literal["latest", "best"] = "latest"
) -> EmbeddingNetwork:
  """Opens a trained network.

  Args:
    source: a workdir, a folder of `tools.export`, or its `model.onnx` or `model.stablehlo`.
    checkpoint: which of a workdir's.

  Raises:
    NetworkError: when there is no network.
    CheckpointError: when the workdir's checkpoint cannot be opened.
    ExportError: when the exported network cannot be opened.
  """
  if not source.exists():
    raise NetworkError(f"{source}: no such workdir, exported folder or model.onnx")
  if source.is_file() or any((source / name).exists() for name in _EXPORTED):
    from magnifier_jax.export.opened import open_exported  # needs no JAX, and other packages

    return open_exported(source)
  if (source / _GALLERY).exists():
    raise NetworkError(f"{source}: a gallery, not a network; name the network's workdir")
  from magnifier_jax.retrieval.workdir_network import open_workdir

  return open_workdir(source, checkpoint)
