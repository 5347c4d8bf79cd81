"""Narrow networks with random weights and statistics, without training or compiling anything."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.models.network import create_network
from magnifier_jax.train_state import TrainState, Tree
from magnifier_jax.trained_network import TrainedNetwork
from magnifier_jax.workdir.checkpoints import Checkpoints, run_record

NUM_PEOPLE, STEP = 6, 3


def narrow_config(variant: str = "small", **changes: Any) -> Config:
  """Returns a config of few channels at 64 × 32, with dotted fields changed, dots as `__`."""
  config = get_config(variant)
  config.model.update(backbone="resnet10_narrow", adversarial_dim=16, fusion_dim=24)
  config.data.image_size_hw = (64, 32)
  flat = {name.replace("__", "."): value for name, value in changes.items()}
  config.update_from_flattened_dict(flat)
  return Config.from_config_dict(config)


def random_network(config: Config, seed: int = 0) -> TrainedNetwork:
  """Returns a network whose layers keep the scale of what goes through them."""
  network, init = create_network(config, NUM_PEOPLE)
  shapes = jax.eval_shape(lambda: init(jax.random.key(0)))
  random = np.random.default_rng(seed)

  def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    name = path[-1].key
    if name in ("scale", "var"):
      return random.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
    if name in ("mean", "bias"):
      return (0.1 * random.standard_normal(leaf.shape)).astype(leaf.dtype)
    if name == "power":
      return random.uniform(2, 4, leaf.shape).astype(leaf.dtype)
    # The upsampling's kernel is [in, 3, 3, out], and one of its nine taps reaches a pixel.
    fan_in = leaf.shape[0] if "upsample" in str(path) else np.prod(leaf.shape[:-1])
    kernel = random.standard_normal(leaf.shape) / np.sqrt(fan_in)
    if "part_segmentation" in str(path) and "classifier" in str(path):
      kernel -= kernel.mean(0)  # or one part would be everywhere: what comes in is positive
    return kernel.astype(leaf.dtype)

  params, batch_stats = jax.tree_util.tree_map_with_path(draw, shapes)
  record = run_record(config, NUM_PEOPLE, steps_per_epoch=1)
  return TrainedNetwork(network, params, batch_stats, config, STEP, best=False, record=record)


def write_workdir(workdir: Path, trained: TrainedNetwork) -> Path:
  """Writes the checkpoint of a network."""
  replicated = mesh_lib.replicated(mesh_lib.data_mesh())
  weights: tuple[Tree, Tree] = jax.device_put((trained.params, trained.batch_stats), replicated)
  checkpoints = Checkpoints(workdir)
  checkpoints.save(TrainState(np.int32(trained.step), *weights, opt_state=()), trained.record)
  checkpoints.close()
  return workdir


def noise_images(number: int, size_hw: tuple[int, int]) -> np.ndarray:
  """Returns images [N, H, W, 3] uint8 that are smooth enough for parts to have an extent."""
  random = np.random.default_rng(1)
  coarse = random.integers(0, 256, (number, size_hw[0] // 8, size_hw[1] // 8, 3), np.uint8)
  return coarse.repeat(8, axis=1).repeat(8, axis=2)
