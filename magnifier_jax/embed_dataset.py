"""Embeds the test people of a data set, on all devices."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from magnifier_jax.config import Config, EvaluationConfig
from magnifier_jax.data.dataset import ReidDataset, ReidSplit
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.evaluation.embedding import EmbeddedBatch, Embeddings, embed
from magnifier_jax.evaluation.protocol import (
  CROSS_CAMERA,
  ImageNumbers,
  Protocol,
  image_numbers,
  make_protocol,
)
from magnifier_jax.evaluation.ranking import Identities
from magnifier_jax.models.network import Network
from magnifier_jax.train_state import Tree
from magnifier_jax.workdir.metrics_log import Progress, say

if TYPE_CHECKING:
  from magnifier_jax.data.pipeline import EvaluationBatch

Batches = Iterator["EvaluationBatch"]

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

  Attributes:
    dataset: the data set.
    protocol: of the test of these people.
  """

  def __init__(self, config: Config, dataset: ReidDataset, network: Network, mesh: Mesh):
    mesh_lib.check_batch_size(config.evaluation.batch_size, mesh, "config.evaluation.batch_size")
    self.protocol = _protocol(dataset, config.evaluation)
    self.protocol.check()
    self._config = config
    self.dataset = dataset
    self._mesh = mesh
    self._network = network
    self._embed_batch = compiled_embedding(network, mesh, flip=config.evaluation.flip)

  def embeddings(self, params: Tree, batch_stats: Tree) -> TestEmbeddings:
    """Embeds both splits; prints progress on large ones."""
    return TestEmbeddings(
      *(
        self._embed_split(split, params, batch_stats)
        for split in (self.dataset.query, self.dataset.gallery)
      )
    )

  def changed_queries(
    self, params: Tree, batch_stats: Tree, change: Callable[[Batches], Batches]
  ) -> Embeddings:
    """Embeds the queries as something changes their images.

    Args:
      params: of the network.
      batch_stats: of the network.
      change: from this process's rows of all batches to the same rows with other images.
    """
    return self._embed_split(self.dataset.query, params, batch_stats, change)

  def query_batches(self, query: ReidSplit | None = None) -> Batches:
    """Returns this process's rows of all batches of the queries, or of them in another order."""
    return self._local_batches(self.dataset.query if query is None else query)

  def predicted_query_parts(
    self, params: Tree, batch_stats: Tree, everybody: bool = False
  ) -> np.ndarray | None:
    """Returns the parts of the first queries, one batch of them, or of all.

    Returns:
      [n, h, w] uint8 in 0…7; None when the network has no part segmentation head.
    """
    network = self._network

    def predict(params: Tree, batch_stats: Tree, images: jax.Array) -> jax.Array | None:
      output, _ = network.apply(params, batch_stats, images, train=False)
      logits = output.segmentation_logits
      return None if logits is None else logits.argmax(axis=-1).astype(jnp.uint8)

    on_all = mesh_lib.replicated(self._mesh)
    batches = self._batches(self.dataset.query)
    options = mesh_lib.compiler_options(self._mesh, network.dtype, train=False)
    compiled = jax.jit(predict, out_shardings=on_all, compiler_options=options)
    parts = []
    for batch in batches if everybody else itertools.islice(batches, 1):
      predicted = compiled(params, batch_stats, batch.image)
      if predicted is None:
        return None
      parts.append(np.asarray(predicted))
    return np.concatenate(parts)[: len(self.dataset.query)]

  def _embed_split(
    self,
    split: ReidSplit,
    params: Tree,
    batch_stats: Tree,
    change: Callable[[Batches], Batches] = lambda batches: batches,
  ) -> Embeddings:
    progress = Progress(len(split))
    reported = 0

    def report(done: int) -> None:
      nonlocal reported
      progress.update(done)
      if done - reported >= _PROGRESS_IMAGES and done < len(split):
        reported = done
        say(f"  embedding {split.name}: {done} of {len(split)} images, {progress.left()} left")

    def embed_batch(batch: "EvaluationBatch") -> EmbeddedBatch:
      rows = (batch.index, batch.mask)
      return EmbeddedBatch(*self._embed_batch(params, batch_stats, batch.image, rows))

    return embed(
      embed_batch,
      self._batches(split, change),
      len(split),
      report,
    )

  def _batches(
    self, split: ReidSplit, change: Callable[[Batches], Batches] = lambda batches: batches
  ) -> Batches:
    return mesh_lib.prefetch(change(self._local_batches(split)), self._mesh)

  def _local_batches(self, split: ReidSplit) -> Batches:
    # Not above: embeddings from a file are evaluated without TensorFlow.
    from magnifier_jax.data.pipeline import evaluation_batches

    return evaluation_batches(split, self._config, jax.process_index(), jax.process_count())


def identities(split: ReidSplit) -> Identities:
  """Returns who is on each image of a split, and from which camera."""
  return Identities(split.person_id, split.camera_id)


def numbered_images(dataset: ReidDataset) -> ImageNumbers:
  """Numbers the test images by their contents; equal ones have one number."""
  sides = (dataset.query, dataset.gallery)
  say(f"{dataset.name}: looking for queries in the gallery, {sum(map(len, sides))} images")
  return image_numbers(*map(_images, sides))


def _images(split: ReidSplit) -> Iterator[bytes]:
  return (split.encoded(row).image for row in range(len(split)))


def _protocol(dataset: ReidDataset, config: EvaluationConfig) -> Protocol:
  images = None if config.camera_rule == CROSS_CAMERA else numbered_images(dataset)
  who = (identities(dataset.query), identities(dataset.gallery))
  return make_protocol(config.camera_rule, *who, images, config.single_shot_draws)


@functools.lru_cache(maxsize=1)  # several data sets, one after the other, compile once
def compiled_embedding(network: Network, mesh: Mesh, flip: bool) -> jax.stages.Wrapped:
  """Returns jitted (params, batch_stats, images, rows) → ({branch: embeddings}, *rows), replicated.

  `rows` are arrays about the images, a tuple of any number of them.

  Args:
    network: whose embeddings are wanted.
    mesh: the batch is sharded over it.
    flip: whether the mirrored image is embedded too, and added.
  """

  def embed_batch(
    params: Tree, batch_stats: Tree, images: jax.Array, rows: tuple[jax.Array, ...]
  ) -> tuple:
    branches = network.embeddings(params, batch_stats, images)
    if flip:
      mirrored = network.embeddings(params, batch_stats, images[:, :, ::-1])
      branches = jax.tree.map(jnp.add, branches, mirrored)
    return branches, *rows

  on_all, over_batch = mesh_lib.replicated(mesh), mesh_lib.batch_sharding(mesh)
  return jax.jit(
    embed_batch,
    in_shardings=(on_all, on_all, over_batch, over_batch),
    out_shardings=on_all,
    compiler_options=mesh_lib.compiler_options(mesh, network.dtype, train=False),
  )
