"""Part labels from a trained run of ours, through its part segmentation head.

Its loss weighs every part alike, so it finds the small ones far too large. How much of an image
each part really covers is estimated from the image, by steps of expectation maximisation (Saerens,
Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities",
2002).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from PIL import Image

from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.part_labelling.labeller import LabellingError, LabelMethod, PersonImage
from magnifier_jax.part_labelling.score_grids import Box, classes_of_scores
from magnifier_jax.train_state import Tree
from magnifier_jax.trained_network import TrainedNetwork, open_trained_network

_IMAGES_PER_DEVICE = 32
_SHARE_STEPS = 3  # few: run to the end, the estimate lets small parts vanish


class NetworkLabeller:
  """Labels images with the part segmentation head of a trained run.

  Args:
    workdir: of the run.
    which: 'latest' or 'best', by mAP.
    share_steps: steps in which the share of each part is estimated; 0 takes them for equal.

  Raises:
    CheckpointError: when there is no checkpoint.
    LabellingError: when the network has no part segmentation head.
  """

  def __init__(
    self,
    workdir: Path,
    which: Literal["latest", "best"] = "latest",
    share_steps: int = _SHARE_STEPS,
  ):
    self._mesh = mesh_lib.data_mesh()
    self.batch_size = _IMAGES_PER_DEVICE * self._mesh.size
    trained = open_trained_network(workdir, which)
    if not trained.config.model.part_segmentation:
      raise LabellingError(
        f"--workdir: the network in {workdir} has no part segmentation head; it was trained with "
        "config.model.part_segmentation=False"
      )
    self._trained, self._share_steps = trained, share_steps
    self._scores = self._compiled_scores(trained)
    self.method = LabelMethod(
      name="network",
      model=f"{workdir}, step {trained.step}",
      sha256=_digest({"params": trained.params, "batch_stats": trained.batch_stats}),
      options={
        "image_size_hw": list(trained.config.data.image_size_hw),
        "share_steps": share_steps,
      },
    )

  def label(self, images: Sequence[PersonImage]) -> list[np.ndarray | None]:
    """See `PartLabeller`."""
    height, width = self._trained.config.data.image_size_hw
    batch = np.zeros((self.batch_size, height, width, 3), np.uint8)
    for row, image in zip(batch, images):
      resized = Image.fromarray(image.pixels).resize((width, height), Image.Resampling.BILINEAR)
      row[:] = np.asarray(resized)
    scores = np.asarray(self._scores(self._trained.params, self._trained.batch_stats, batch))
    return [
      _parts(weigh_by_shares(grid, self._share_steps), image.pixels.shape[:2])
      for grid, image in zip(scores, images)
    ]

  def _compiled_scores(self, trained: TrainedNetwork):
    """Returns jitted (params, batch_stats, images) → scores [B, S, H/8, W/8], replicated."""

    def scores(params: Tree, batch_stats: Tree, images: jax.Array) -> jax.Array:
      output, _ = trained.network.apply(params, batch_stats, images, train=False)
      return output.segmentation_logits.transpose(0, 3, 1, 2)

    on_all, over_batch = mesh_lib.replicated(self._mesh), mesh_lib.batch_sharding(self._mesh)
    return jax.jit(
      scores,
      in_shardings=(on_all, on_all, over_batch),
      out_shardings=on_all,
      compiler_options=mesh_lib.compiler_options(self._mesh, trained.network.dtype, train=False),
    )


def weigh_by_shares(scores: np.ndarray, steps: int) -> np.ndarray:
  """Adds to the scores of one image the logarithms of the estimated shares of its parts.

  Args:
    scores: (S, h, w) float, of a network that takes every part for equally large.
    steps: of expectation maximisation, each from the shares of the step before.

  Returns:
    (S, h, w) float.
  """
  likelihood = np.exp(scores - scores.max(axis=0))
  shares = np.full((len(scores), 1, 1), 1 / len(scores))
  for _ in range(steps):
    posterior = likelihood * shares
    posterior /= posterior.sum(axis=0)
    shares = posterior.mean(axis=(1, 2), keepdims=True)
  return scores + np.log(np.maximum(shares, np.finfo(np.float32).tiny))


def _parts(scores: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray | None:
  box = Box(0, 0, scores.shape[2], scores.shape[1])
  parts = classes_of_scores(scores, box, size_hw, "bilinear").astype(np.uint8)
  return parts if parts.any() else None


def _digest(tree: Tree) -> str:
  """Returns the SHA-256 of the names and values of all arrays."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()
