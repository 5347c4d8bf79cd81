"""The one way to open a trained network: what a run left → network, weights and config."""

from pathlib import Path
from typing import Literal, NamedTuple

import jax

from magnifier_jax.config import Config, ConfigError
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.models.network import Network, create_network
from magnifier_jax.train_state import Tree, Weights
from magnifier_jax.workdir.checkpoints import (
  CheckpointError,
  Checkpoints,
  RunRecord,
  abstract_state,
)

# Whom a network is measured on, and how; all else of a config is its run's.
_OF_AN_EVALUATION = ("dtype", "evaluation")
_DATA_OF_AN_EVALUATION = (
  "dataset",
  "manual_dir",
  "data_dir",
  "missing_part_labels",
  "validation_people",
  "num_workers",
)


class TrainedNetwork(NamedTuple):
  """A network and its weights, on every device: what is needed to run it, and nothing else.

  `network.apply(params, batch_stats, images, train=False)` takes uint8 images of
  `config.data.image_size_hw`.
  """

  network: Network
  params: Tree
  batch_stats: Tree
  config: Config
  step: int  # updates done; 0 where weights were converted
  best: bool  # chosen by mAP; 'best' takes the newest where nothing was evaluated
  record: RunRecord  # what its run wrote down about itself, such as the number of people


def open_trained_network(
  source: Path,
  checkpoint: Literal["latest", "best"] = "latest",
  config: Config | None = None,
) -> TrainedNetwork:
  """Opens what a run, or `tools.convert`, left in a workdir. The optimiser's state is not read.

  Args:
    source: a workdir.
    checkpoint: which of its checkpoints that are whole; 'best' is by mAP on the people that it was
      evaluated on.
    config: of an evaluation, on any data set: its `dtype`, its `evaluation` and what it says about
      where the data are take the place of the stored ones. Fields that say which network it is,
      and those that only training reads, stay the run's. None takes the stored config.

  Raises:
    CheckpointError: when there is no checkpoint that is whole, or one of a version of this program
      with other config fields.
  """
  checkpoints = Checkpoints(source, read_only=True)
  try:
    step = checkpoints.intact_step(best=checkpoint == "best")
    if step is None:
      raise CheckpointError(
        f"{checkpoints.directory}: no checkpoint there; train first, or name another workdir"
      )
    best = checkpoint == "best" and checkpoints.metrics(step) is not None
    record = checkpoints.read_run(step)
    config = _config(source, record, config)
    network, init = create_network(config, record.num_people)
    shapes = jax.eval_shape(lambda: init(jax.random.key(0)))
    target = abstract_state(Weights(*shapes), mesh_lib.replicated(mesh_lib.data_mesh()))
    weights = checkpoints.restore_weights(step, target)
  finally:
    checkpoints.close()
  return TrainedNetwork(
    network=network,
    params=weights.params,
    batch_stats=weights.batch_stats,
    config=config,
    step=step,
    best=best,
    record=record,
  )


def _config(source: Path, record: RunRecord, evaluation: Config | None) -> Config:
  """Returns the config to build the network by."""
  values = dict(record.config)
  if evaluation is not None:
    given = evaluation.to_dict()
    values |= {name: given[name] for name in _OF_AN_EVALUATION}
    values["data"] = values["data"] | {name: given["data"][name] for name in _DATA_OF_AN_EVALUATION}
  try:
    return Config.from_config_dict(values)
  except ConfigError as error:
    raise CheckpointError(
      f"{source}: the run is of another version of this program ({error})"
    ) from error
