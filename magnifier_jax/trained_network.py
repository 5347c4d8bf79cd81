"""The one way to open a trained network: what a run left → network, weights and config."""

from pathlib import Path
from typing import Literal, NamedTuple

import jax

from magnifier_jax.config import Config, ConfigError
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.models.network import Network, create_network
from magnifier_jax.train_state import Tree
from magnifier_jax.workdir.checkpoints import (
  CheckpointError,
  Checkpoints,
  RunRecord,
  abstract_state,
  check_same_run,
  run_record,
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
    config: to be used in place of the stored one; fields that say what is computed must be equal.
      None takes the stored one.

  Raises:
    CheckpointError: when there is no checkpoint that is whole, one of another config, or one of a
      version of this program with other config fields.
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
    target = abstract_state(shapes, mesh_lib.replicated(mesh_lib.data_mesh()))
    params, batch_stats = checkpoints.restore_weights(step, *target)
  finally:
    checkpoints.close()
  return TrainedNetwork(
    network=network,
    params=params,
    batch_stats=batch_stats,
    config=config,
    step=step,
    best=best,
    record=record,
  )


def _config(source: Path, record: RunRecord, wanted: Config | None) -> Config:
  """Returns the config to build the network by."""
  if wanted is not None:
    check_same_run(source, record, run_record(wanted, record.num_people, record.steps_per_epoch))
    return wanted
  try:
    return Config.from_config_dict(record.config)
  except ConfigError as error:
    raise CheckpointError(
      f"{source}: the run is of another version of this program ({error})"
    ) from error
