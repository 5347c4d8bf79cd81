"""Embeds the test people of a data set, on all devices."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from magnifier_jax.config import Config
from magnifier_jax.data.dataset import ReidDataset, ReidSplit
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.evaluation.embedding import EmbeddedBatch, Embeddings, embed
from magnifier_jax.evaluation.identities import check_matches
from magnifier_jax.evaluation.ranking import Identities
from magnifier_jax.models.network import Network
from magnifier_jax.train_state import Tree
from magnifier_jax.workdir.metrics_log import Progress, say

if TYPE_CHECKING:
  from magnifier_jax.data.pipeline import EvaluationBatch

_PROGRESS_IMAGES = 2000  # images between two lines of progress


class TestEmbeddings(NamedTuple):
  """Embeddings of both sides of a test."""

  query: Embeddings
  gallery: Embeddings


class DatasetEmbedder:
  """Embeds the test people of a data set.

  Args:
    config: of the run; reads `data` and `evaluation`.
    dataset: with `query` and `gallery`.
    network: whose embeddings are evaluated.
    mesh: batches are sharded over it.

  Raises:
    DeviceError: when the devices do not divide the evaluation batch.
    EvaluationError: when no query has a match, so that nothing could be evaluated.
  """

  def __init__(self, config: Config, dataset: ReidDataset, network: Network, mesh: Mesh):
    mesh_lib.check_batch_size(config.evaluation.batch_size, mesh, "config.evaluation.batch_size")
    check_matches(identities(dataset.query), identities(dataset.gallery))
    self._config = config
    self._dataset = dataset
    self._mesh = mesh
    self._network = network
    self._embed_batch = compiled_embedding(network, mesh, flip=config.evaluation.flip)

  def embeddings(self, params: Tree, batch_stats: Tree) -> TestEmbeddings:
    """Embeds both splits; prints progress on large ones."""
    return TestEmbeddings(
      *(
        self._embed_split(split, params, batch_stats)
        for split in (self._dataset.query, self._dataset.gallery)
      )
    )

  def predicted_query_parts(self, params: Tree, batch_stats: Tree) -> np.ndarray | None:
    """Returns the parts of the first queries, one batch of them.

    Returns:
      [n, h, w] uint8 in 0…7; None when the network has no part segmentation head.
    """
    network = self._network

    def predict(params: Tree, batch_stats: Tree, images: jax.Array) -> jax.Array | None:
      output, _ = network.apply(params, batch_stats, images, train=False)
      logits = output.segmentation_logits
      return None if logits is None else logits.argmax(axis=-1).astype(jnp.uint8)

    on_all = mesh_lib.replicated(self._mesh)
    batch = next(self._batches(self._dataset.query))
    options = mesh_lib.compiler_options(self._mesh, network.dtype, train=False)
    compiled = jax.jit(predict, out_shardings=on_all, compiler_options=options)
    parts = compiled(params, batch_stats, batch.image)
    return None if parts is None else np.asarray(parts)[: len(self._dataset.query)]

  def _embed_split(self, split: ReidSplit, params: Tree, batch_stats: Tree) -> Embeddings:
    progress = Progress(len(split))
    reported = 0

    def report(done: int) -> None:
      nonlocal reported
      progress.update(done)
      if done - reported >= _PROGRESS_IMAGES and done < len(split):
        reported = done
        say(f"  embedding {split.name}: {done} of {len(split)} images, {progress.left()} left")

    return embed(
      lambda batch: self._embed_batch(params, batch_stats, batch),
      self._batches(split),
      len(split),
      report,
    )

  def _batches(self, split: ReidSplit) -> Iterator["EvaluationBatch"]:
    # Not above: embeddings from a file are evaluated without TensorFlow.
    from magnifier_jax.data.pipeline import evaluation_batches

    batches = evaluation_batches(split, self._config, jax.process_index(), jax.process_count())
    return mesh_lib.prefetch(batches, self._mesh)


def identities(split: ReidSplit) -> Identities:
  """Returns who is on each image of a split, and from which camera."""
  return Identities(split.person_id, split.camera_id)


def compiled_embedding(network: Network, mesh: Mesh, flip: bool) -> jax.stages.Wrapped:
  """Returns jitted (params, batch_stats, batch) → `EmbeddedBatch`, replicated.

  Args:
    network: whose embeddings are wanted.
    mesh: the batch is sharded over it.
    flip: whether the mirrored image is embedded too, and added.
  """

  def embed_batch(params: Tree, batch_stats: Tree, batch: "EvaluationBatch") -> EmbeddedBatch:
    branches = network.embeddings(params, batch_stats, batch.image)
    if flip:
      mirrored = network.embeddings(params, batch_stats, batch.image[:, :, ::-1])
      branches = jax.tree.map(jnp.add, branches, mirrored)
    return EmbeddedBatch(branches, batch.index, batch.mask)

  on_all, over_batch = mesh_lib.replicated(mesh), mesh_lib.batch_sharding(mesh)
  return jax.jit(
    embed_batch,
    in_shardings=(on_all, on_all, over_batch),
    out_shardings=on_all,
    compiler_options=mesh_lib.compiler_options(mesh, network.dtype, train=False),
  )
