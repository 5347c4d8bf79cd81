"""The network of a workdir, compiled, on all devices."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.evaluation.embedding import BRANCHES
from magnifier_jax.evaluation.thresholds import read_thresholds
from magnifier_jax.models.network import Network
from magnifier_jax.trained_network import open_trained_network
from magnifier_jax.weights.digest import weights_sha256


class WorkdirNetwork:
  """An `EmbeddingNetwork` of a checkpoint. Each number of images is compiled once.

  Args:
    workdir: of a run.
    checkpoint: which of its checkpoints.

  Raises:
    CheckpointError: when there is none that is whole.
  """

  def __init__(self, workdir: Path, checkpoint: Literal["latest", "best"]):
    trained = open_trained_network(workdir, checkpoint)
    self._mesh = mesh_lib.data_mesh()
    self._weights = trained.params, trained.batch_stats
    self._embed = _compiled(trained.network, self._mesh)
    self.description = f"{trained.config.name}, step {trained.step}, of {workdir}"
    self.image_size_hw: tuple[int, int] = trained.config.data.image_size_hw
    self.weights_sha256 = weights_sha256(*self._weights)
    self.thresholds: Mapping[str, Any] | None = read_thresholds(workdir, trained.step)
    one_image = jax.ShapeDtypeStruct((1, *self.image_size_hw, 3), np.uint8)
    shapes = jax.eval_shape(trained.network.embeddings, *self._weights, one_image)
    # JAX sorts the keys of what it returns.
    self.branches = {name: shapes[name].shape[1] for name in BRANCHES if name in shapes}

  def embed_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Embeds [B, H, W, 3] uint8 RGB; returns {branch: [B, D_branch] float32}."""
    count = len(images)
    padding = -count % self._mesh.size
    images = np.concatenate([images, np.zeros((padding, *images.shape[1:]), np.uint8)])
    embedded = self._embed(*self._weights, mesh_lib.to_global(images, self._mesh))
    return {name: np.asarray(embedded[name])[:count] for name in self.branches}


def _compiled(network: Network, mesh: Mesh):
  """Returns jitted (params, batch_stats, images) → {branch: embeddings}, replicated."""
  on_all, over_batch = mesh_lib.replicated(mesh), mesh_lib.batch_sharding(mesh)
  return jax.jit(
    network.embeddings,
    in_shardings=(on_all, on_all, over_batch),
    out_shardings=on_all,
    compiler_options=mesh_lib.compiler_options(mesh, network.dtype, train=False),
  )
