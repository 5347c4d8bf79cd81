"""Random weights of a small network, without compiling anything."""

from typing import NamedTuple

import jax
import numpy as np

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.interop.state_dict import to_state_dict
from magnifier_jax.models.network import create_network
from magnifier_jax.train_state import TrainState, Tree


class SmallNetwork(NamedTuple):
  """A ResNet-18 MagnifierNet; everything is numpy."""

  params: Tree
  batch_stats: Tree

  @property
  def state_dict(self) -> dict[str, np.ndarray]:
    """With PyTorch's names and layouts."""
    return to_state_dict(self.params, self.batch_stats)

  def state(self) -> TrainState:
    """A training state with these weights on all devices, and no optimiser."""
    replicated = mesh_lib.replicated(mesh_lib.data_mesh())
    return TrainState(
      np.int32(0), *jax.device_put((self.params, self.batch_stats), replicated), opt_state=()
    )


def small_network(num_people: int, seed: int = 0) -> SmallNetwork:
  """Returns random weights for the config of `small_config`."""
  _, init = create_network(small_config(), num_people)
  shapes = jax.eval_shape(lambda: init(jax.random.key(0)))
  random = np.random.default_rng(seed)
  return SmallNetwork(
    *jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), shapes)
  )


def small_config(backbone: str = "none", checkpoint: str = "") -> Config:
  """Returns `configs/cuhk03.py:small` with what to start from."""
  config = get_config("small")
  config.init.update(backbone=backbone, checkpoint=checkpoint)
  return Config.from_config_dict(config)
