"""The weights of a run: from its checkpoints to a `state_dict`, and from one to a checkpoint."""

from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np

from magnifier_jax.config import Config
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.files.disk_space import full_disk_named
from magnifier_jax.interop.state_dict import load_state_dict, num_people, to_state_dict
from magnifier_jax.interop.torchvision_weights import check_whole_network
from magnifier_jax.interop.weights_file import WeightsFile
from magnifier_jax.train_step import create_trainer
from magnifier_jax.trained_network import open_trained_network
from magnifier_jax.workdir.checkpoints import CheckpointError, Checkpoints, RunRecord, run_record
from magnifier_jax.workdir.lock import locked
from magnifier_jax.workdir.metrics_log import say
from magnifier_jax.workdir.origin import write_origin


class WorkdirWeights(NamedTuple):
  """The weights of one checkpoint."""

  step: int
  state_dict: dict[str, np.ndarray]


def read_workdir(workdir: Path, which: Literal["latest", "best"] = "latest") -> WorkdirWeights:
  """Reads the weights of a run, with PyTorch's names and layouts.

  Args:
    workdir: of the run.
    which: 'latest' or 'best', by mAP.

  Raises:
    CheckpointError: when there is no checkpoint, or one of a version with other config fields.
  """
  trained = open_trained_network(workdir, which)
  return WorkdirWeights(trained.step, to_state_dict(trained.params, trained.batch_stats))


def write_workdir(config: Config, weights: WeightsFile, workdir: Path) -> RunRecord:
  """Writes a checkpoint of step 0 that `--mode=evaluate` takes.

  Args:
    config: of the network; the number of people comes from the file.
    weights: of a whole MagnifierNet.
    workdir: without checkpoints.

  Raises:
    BackboneError, StateDictError: when the weights are not those of the config's network.
    CheckpointError: when the workdir has checkpoints.
    WriteError, DiskFullError: when it cannot be written; no half of a checkpoint stays.
    WorkdirInUseError: when a run trains there.
  """
  people = num_people(weights.state_dict, str(weights.path))
  check_whole_network(weights.state_dict, config.model.backbone, weights.path)
  # No epoch was trained here, so there is no number of steps in one.
  trainer = create_trainer(config, people, 0, mesh_lib.data_mesh(jax.devices()[:1]))
  shapes = trainer.init.eval_shape(config.seed)
  params, batch_stats = load_state_dict(
    weights.state_dict, shapes.params, shapes.batch_stats, source=str(weights.path)
  )
  state = trainer.start(params, batch_stats)
  record = run_record(config, people, 0)
  with full_disk_named(workdir, "Nothing was converted."), locked(workdir, say):
    checkpoints = Checkpoints(workdir)
    if checkpoints.latest_step() is not None:
      raise CheckpointError(f"{checkpoints.directory}: holds checkpoints; choose another folder")
    try:
      checkpoints.save(state, record)
      checkpoints.close()
      write_origin(workdir, {"path": str(weights.path), "sha256": weights.sha256})
    except BaseException:
      checkpoints.discard(step=0)
      raise
  return record
