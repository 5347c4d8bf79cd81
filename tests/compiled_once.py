"""Runs in one process share what they trace and compile: most of a tiny run's time."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.sharding import Mesh

from magnifier_jax import embed_dataset
from magnifier_jax import train as train_lib
from magnifier_jax.config import Config
from magnifier_jax.embed_dataset import DatasetEmbedder
from magnifier_jax.report import page
from magnifier_jax.train_state import TrainState
from magnifier_jax.train_step import Trainer


@contextmanager
def compiled_once() -> Iterator[None]:
  """Inside, one trainer, one update and one embedding serve all runs of the same programs.

  So does one draw of the weights for all runs of one seed.
  """
  create, compile_step = train_lib.create_trainer, train_lib.compile_step
  draw = train_lib.draw_state
  trainers: dict[Any, Trainer] = {}
  updates: dict[int, Callable] = {}  # by trainer, which `trainers` keeps
  drawn: dict[tuple[int, int], tuple[TrainState, Any]] = {}  # by trainer and seed, with shardings

  def create_once(config: Config, num_people: int, steps_per_epoch: int, mesh: Mesh) -> Trainer:
    data = config.data
    computed = (config.dtype, config.model, config.loss, config.optimizer)
    seen = (data.image_size_hw, data.pixel_mean, data.pixel_std)
    key = (computed, seen, num_people, steps_per_epoch, mesh)
    if key not in trainers:
      trainers[key] = create(config, num_people, steps_per_epoch, mesh)
    return trainers[key]

  def compile_once(trainer: Trainer, state: Any, batch: Any) -> Callable:
    if id(trainer) not in updates:
      updates[id(trainer)] = compile_step(trainer, state, batch)
    return updates[id(trainer)]

  def draw_once(trainer: Trainer, seed: int) -> TrainState:
    if (key := (id(trainer), seed)) not in drawn:
      state = draw(trainer, seed)
      drawn[key] = jax.device_get(state), jax.tree.map(lambda array: array.sharding, state)
    return jax.device_put(*drawn[key])  # a copy: the update donates its state

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train_lib, "create_trainer", create_once)
    patch.setattr(train_lib, "draw_state", draw_once)
    patch.setattr(train_lib, "compile_step", compile_once)
    embedding = functools.cache(embed_dataset.compiled_embedding)
    patch.setattr(embed_dataset, "compiled_embedding", embedding)
    yield


@contextmanager
def no_report() -> Iterator[None]:
  """Inside, runs write no `report.html`: its figures, and the network that predicts its parts."""

  def write_nothing(path: Path, data: Any) -> None:
    pass

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(page, "write_report", write_nothing)
    patch.setattr(DatasetEmbedder, "predicted_query_parts", lambda *state: None)
    yield
