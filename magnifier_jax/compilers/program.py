"""Our programs, traced for devices that are not there: shapes in place of data."""

import dataclasses
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from magnifier_jax.config import Config
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.embed_dataset import compiled_embedding
from magnifier_jax.models.network import create_network
from magnifier_jax.train_state import Batch
from magnifier_jax.train_step import create_trainer

What = Literal["train", "embed"]
_STEPS_PER_EPOCH = 100  # a constant of the schedules, of no consequence here


class Program(NamedTuple):
  """What to compile, for which devices."""

  what: What  # 'train', the training step; 'embed', the embedding of an evaluation batch
  config: Config  # no file that it names is read
  num_people: int  # N, identities of the training set
  mesh: Mesh  # over devices that need not exist

  @property
  def images(self) -> int:
    """Images in one global batch."""
    data, evaluation = self.config.data, self.config.evaluation
    return data.batch_size if self.what == "train" else evaluation.batch_size

  @property
  def unit(self) -> int:
    """The smallest batch; others are multiples of it."""
    if self.what == "train":
      return math.lcm(self.config.data.images_per_identity, self.mesh.size)
    return self.mesh.size

  def with_images(self, images: int) -> "Program":
    """Returns the program with another global batch, a multiple of `unit`."""
    config = self.config
    if self.what == "train":
      identities = images // config.data.images_per_identity
      data = dataclasses.replace(config.data, identities_per_batch=identities)
      config = dataclasses.replace(config, data=data)
    else:
      evaluation = dataclasses.replace(config.evaluation, batch_size=images)
      config = dataclasses.replace(config, evaluation=evaluation)
    return self._replace(config=config)

  def lower(self) -> jax.stages.Lowered:
    """Traces it with the shardings, donation and compiler options that a run gives it.

    Raises:
      DeviceError: when the devices do not divide the batch.
    """
    lower = _lower_step if self.what == "train" else _lower_embedding
    return lower(self.config, self.num_people, self.mesh)


def _lower_step(config: Config, num_people: int, mesh: Mesh) -> jax.stages.Lowered:
  data = config.data
  mesh_lib.check_batch_size(
    data.batch_size, mesh, "config.data.identities_per_batch × images_per_identity"
  )
  trainer = create_trainer(config, num_people, _STEPS_PER_EPOCH, mesh)
  state = jax.eval_shape(lambda: trainer.init(0))
  height, width = data.image_size_hw
  batch = Batch(
    image=_array(data.batch_size, height, width, 3),
    part_labels=_array(data.batch_size, height // 8, width // 8),
    keep_mask=_array(data.batch_size, height // 16, width // 16),
    person_id=_array(data.batch_size, dtype=jnp.int32),
  )
  return trainer.step.lower(state, batch)


def _lower_embedding(config: Config, num_people: int, mesh: Mesh) -> jax.stages.Lowered:
  images = config.evaluation.batch_size
  mesh_lib.check_batch_size(images, mesh, "config.evaluation.batch_size")
  network, init = create_network(config, num_people)
  params, batch_stats = jax.eval_shape(lambda: init(jax.random.key(0)))
  pixels = _array(images, *config.data.image_size_hw, 3)
  rows = (_array(images, dtype=jnp.int32), _array(images))
  embedding = compiled_embedding(network, mesh, flip=config.evaluation.flip)
  return embedding.lower(params, batch_stats, pixels, rows)


def _array(*shape: int, dtype: jnp.dtype = jnp.uint8) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype)
