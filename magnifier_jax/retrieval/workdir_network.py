"""A network in this process, compiled, on all devices; most often that of a workdir."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.embed_dataset import compiled_embedding
from magnifier_jax.evaluation.embedding import BRANCHES
from magnifier_jax.export.results import calibrated_thresholds
from magnifier_jax.models.network import Network
from magnifier_jax.train_state import Tree
from magnifier_jax.trained_network import open_trained_network
from magnifier_jax.weights.digest import weights_sha256


class CompiledNetwork:
  """An `EmbeddingNetwork` that JAX runs. Each number of images is compiled once.

  Args:
    network: to run.
    params: its parameters.
    batch_stats: its running statistics.
    image_size_hw: H and W in pixels.
    description: which network it is, for people.
    thresholds: as in `metrics.json`; None where nobody calibrated them.
  """

  def __init__(
    self,
    network: Network,
    params: Tree,
    batch_stats: Tree,
    image_size_hw: tuple[int, int],
    description: str,
    thresholds: Mapping[str, Any] | None = None,
  ):
    self._mesh = mesh_lib.data_mesh()
    self._weights = params, batch_stats
    self._embed = compiled_embedding(network, self._mesh, flip=False)
    self.description = description
    self.image_size_hw = image_size_hw
    self.weights_sha256 = weights_sha256(params, batch_stats)
    self.thresholds = thresholds
    one_image = jax.ShapeDtypeStruct((1, *image_size_hw, 3), np.uint8)
    shapes = jax.eval_shape(network.embeddings, params, batch_stats, one_image)
    # JAX sorts the keys of what it returns.
    self.branches = {name: shapes[name].shape[1] for name in BRANCHES if name in shapes}

  def embed_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Embeds [B, H, W, 3] uint8 RGB; returns {branch: [B, D_branch] float32}."""
    count = len(images)
    if padding := -count % self._mesh.size:
      images = np.concatenate([images, np.zeros((padding, *images.shape[1:]), np.uint8)])
    (embedded,) = self._embed(*self._weights, mesh_lib.to_global(images, self._mesh), ())
    return {name: np.asarray(embedded[name])[:count] for name in self.branches}


def open_workdir(workdir: Path, checkpoint: Literal["latest", "best"]) -> CompiledNetwork:
  """Opens the network of a checkpoint.

  Args:
    workdir: of a run.
    checkpoint: which of its checkpoints.

  Raises:
    CheckpointError: when there is none that is whole.
    ThresholdError: when the results of its evaluation are damaged.
  """
  trained = open_trained_network(workdir, checkpoint)
  return CompiledNetwork(
    trained.network,
    trained.params,
    trained.batch_stats,
    trained.config.data.image_size_hw,
    f"{trained.config.name}, step {trained.step}, of {workdir}",
    calibrated_thresholds(workdir, trained.step),
  )
