"""The weights of a run: from its checkpoints to a `state_dict`, and from one to a checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from magnifier_jax.config import Config, ConfigError
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.interop.state_dict import load_state_dict, num_people, to_state_dict
from magnifier_jax.interop.torchvision_weights import check_whole_network
from magnifier_jax.interop.weights_file import WeightsFile
from magnifier_jax.models.network import Network, Tree
from magnifier_jax.optimizer import adam_with_l2
from magnifier_jax.train_state import TrainState
from magnifier_jax.train_step import create_trainer
from magnifier_jax.workdir.checkpoints import (
  CheckpointError,
  Checkpoints,
  RunRecord,
  abstract_state,
  run_record,
)

ORIGIN = "initial_weights.json"


class WorkdirWeights(NamedTuple):
  """The weights of one checkpoint."""

  step: int
  run: RunRecord
  state_dict: dict[str, np.ndarray]


class RestoredRun(NamedTuple):
  """A trained network, ready to run."""

  step: int
  run: RunRecord
  config: Config
  network: Network
  params: Tree
  batch_stats: Tree


def restore_workdir(workdir: Path, which: str = "latest") -> RestoredRun:
  """Reads the network of a run; its arrays are on every device.

  Args:
    workdir: of the run.
    which: 'latest' or 'best', by mAP.

  Raises:
    CheckpointError: when there is no checkpoint, or one of a version with other config fields.
  """
  checkpoints = Checkpoints(workdir, read_only=True)
  step = checkpoints.intact_step(best=which == "best")
  if step is None:
    raise CheckpointError(f"{checkpoints.directory}: no checkpoint there")
  run = checkpoints.read_run(step)
  try:
    config = Config.from_config_dict(run.config)
  except ConfigError as error:
    raise CheckpointError(
      f"{checkpoints.directory}: the run is of another version of this program ({error})"
    ) from error
  mesh = mesh_lib.data_mesh()
  trainer = create_trainer(config, run.num_people, run.steps_per_epoch, mesh)
  shapes = trainer.init.eval_shape(config.seed)
  state = checkpoints.restore(step, abstract_state(shapes, mesh_lib.replicated(mesh)))
  checkpoints.close()
  return RestoredRun(step, run, config, trainer.network, state.params, state.batch_stats)


def read_workdir(workdir: Path, which: str = "latest") -> WorkdirWeights:
  """Reads the weights of a run.

  Args:
    workdir: of the run.
    which: 'latest' or 'best', by mAP.

  Raises:
    CheckpointError: when there is no checkpoint, or one of a version with other config fields.
  """
  restored = restore_workdir(workdir, which)
  weights = to_state_dict(restored.params, restored.batch_stats)
  return WorkdirWeights(restored.step, restored.run, weights)


def write_workdir(config: Config, weights: WeightsFile, workdir: Path) -> RunRecord:
  """Writes a checkpoint of step 0 that `--mode=evaluate` takes.

  Args:
    config: of the network; the number of people comes from the file.
    weights: of a whole MagnifierNet.
    workdir: without checkpoints.

  Raises:
    BackboneError, StateDictError: when the weights are not those of the config's network.
    CheckpointError: when the workdir has checkpoints.
  """
  people = num_people(weights.state_dict, str(weights.path))
  check_whole_network(weights.state_dict, config.model.backbone, weights.path)
  # No epoch was trained here, so there is no number of steps in one.
  trainer = create_trainer(config, people, 0, mesh_lib.data_mesh(jax.devices()[:1]))
  shapes = trainer.init.eval_shape(config.seed)
  params, batch_stats = load_state_dict(
    weights.state_dict, shapes.params, shapes.batch_stats, source=str(weights.path)
  )
  opt_state = adam_with_l2(trainer.schedule, config.optimizer.weight_decay).init(params)
  state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, opt_state)
  record = run_record(config, people, 0)
  checkpoints = Checkpoints(workdir)
  if checkpoints.latest_step() is not None:
    raise CheckpointError(f"{checkpoints.directory}: holds checkpoints; choose another folder")
  checkpoints.save(state, record)
  checkpoints.close()
  write_origin(workdir, {"path": str(weights.path), "sha256": weights.sha256})
  return record


def write_origin(workdir: Path, origin: Mapping[str, Any]) -> None:
  """Writes down beside the checkpoints where their weights came from."""
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / ORIGIN).write_text(json.dumps(dict(origin), indent=2) + "\n")
