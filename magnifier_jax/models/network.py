"""A MagnifierNet as plain functions on nested dicts of parameters and batch statistics.

The NNX module is taken apart once, here, so that the update, checkpoints and evaluation see nothing
but plain JAX.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.config import Config
from magnifier_jax.models.magnifier_net import MagnifierNet, MagnifierNetOutput
from magnifier_jax.train_state import Tree


class Network(NamedTuple):
  """A MagnifierNet taken apart: its structure, and how to run it on plain trees."""

  graphdef: nnx.GraphDef
  dtype: jnp.dtype
  pixel_mean: tuple[float, float, float]
  pixel_std: tuple[float, float, float]

  def apply(
    self,
    params: Tree,
    batch_stats: Tree,
    images: jax.Array,
    part_labels: jax.Array | None = None,
    keep_mask: jax.Array | None = None,
    *,
    train: bool,
  ) -> tuple[MagnifierNetOutput, Tree]:
    """Runs the network.

    Args:
      params: its parameters.
      batch_stats: its running statistics.
      images: [B, H, W, 3] uint8, RGB; they are normalised here. For images that are normalised
        already there is `module`.
      part_labels: see `MagnifierNet`.
      keep_mask: see `MagnifierNet`.
      train: use the batch's statistics and update the running ones.

    Returns:
      The output, and the new running statistics.
    """
    model = self.module(params, batch_stats)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    normalized = normalize(images, self.pixel_mean, self.pixel_std, wide)
    output = model(normalized, part_labels, keep_mask, train=train)
    return output, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

  def embeddings(self, params: Tree, batch_stats: Tree, images: jax.Array) -> dict[str, jax.Array]:
    """Returns what images are searched by: {branch: [B, D_branch] float32}, not normalised.

    Args:
      params: its parameters.
      batch_stats: its running statistics.
      images: [B, H, W, 3] uint8, RGB.
    """
    output, _ = self.apply(params, batch_stats, images, train=False)
    return {name: value.astype(jnp.float32) for name, value in output.embeddings().items()}

  def module(self, params: Tree, batch_stats: Tree) -> MagnifierNet:
    """Puts the network together with its arrays; it takes normalised images."""
    return nnx.merge(self.graphdef, nnx.State(params), nnx.State(batch_stats), copy=True)


def normalize(
  images: jax.Array,
  mean: tuple[float, float, float],
  std: tuple[float, float, float],
  dtype: jnp.dtype,
) -> jax.Array:
  """Returns (images − mean) / std of RGB images [B, H, W, 3] 0…255, in `dtype`."""
  mean, std = (jnp.asarray(channels, dtype).reshape(1, 1, 1, 3) for channels in (mean, std))
  return (images.astype(dtype) - mean) / std


def create_network(config: Config, num_people: int) -> tuple[Network, Callable]:
  """Returns the network and `init(key) → (params, batch_stats)`, which draws its weights."""
  dtype = jnp.dtype(config.dtype)

  def build(key: jax.Array) -> MagnifierNet:
    return MagnifierNet(config.model, num_people, dtype=dtype, rngs=nnx.Rngs(params=key))

  def init(key: jax.Array) -> tuple[Tree, Tree]:
    _, params, batch_stats = nnx.split(build(key), nnx.Param, nnx.BatchStat)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)

  graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(jax.random.key(0))))
  return Network(graphdef, dtype, config.data.pixel_mean, config.data.pixel_std), init
