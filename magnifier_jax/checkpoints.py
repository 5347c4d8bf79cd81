"""Checkpoints of a run through Orbax: the newest and the best, each with its config and metrics."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from magnifier_jax.config import Config
from magnifier_jax.errors import UserError
from magnifier_jax.train_step import TrainState

# Fields that may change between a run and its continuation without changing what it computes.
FREE_FIELDS = (
  "model.rematerialize",
  "data.manual_dir",
  "data.data_dir",
  "data.num_workers",
  # A network chosen on validation people is tested on the test people; training notices by itself,
  # since the number of people differs.
  "data.validation_people",
  "training.num_epochs",
  "training.log_every_steps",
  "training.keep_checkpoints",
  "evaluation",
  "published",
  "published_source",
)


class CheckpointError(UserError):
  """A workdir has no usable checkpoint, or one of another run."""


class RunRecord(NamedTuple):
  """What a checkpoint says about its run beside the arrays."""

  config: dict[str, Any]  # JSON values
  num_people: int  # N, identities of the training set
  steps_per_epoch: int


class Checkpoints:
  """Checkpoints under `workdir/checkpoints/STEP/{state, run, metrics}`.

  Saving is asynchronous and atomic: a checkpoint that is listed is complete. Orbax deletes what
  is neither among the newest `keep` nor the best by mAP.

  Args:
    workdir: of the run.
    keep: how many of the newest stay.
    read_only: nothing is created, saved or cleaned up.
  """

  def __init__(self, workdir: Path, keep: int = 1, read_only: bool = False):
    self.directory = workdir.absolute() / "checkpoints"
    policy = AnyPreservationPolicy([LatestN(keep), BestN(get_metric_fn=_mean_ap, n=1)])
    options = ocp.CheckpointManagerOptions(
      preservation_policy=policy,
      best_fn=_mean_ap,  # without it Orbax stores no metrics
      cleanup_tmp_directories=not read_only,
      create=not read_only,
      read_only=read_only,
    )
    self._manager = ocp.CheckpointManager(
      self.directory,
      options=options,
      item_handlers={"state": ocp.StandardCheckpointHandler(), "run": ocp.JsonCheckpointHandler()},
    )

  def latest_step(self) -> int | None:
    """Returns the step of the newest checkpoint, or None."""
    return self._manager.latest_step()

  def best_step(self) -> int | None:
    """Returns the step of the checkpoint with the highest mAP, or None."""
    return self._manager.best_step()

  def save(self, state: TrainState, run: RunRecord, metrics: Mapping[str, float]) -> None:
    """Starts saving; returns once the arrays are copied. A step that is there already is kept."""
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state._asdict()), run=ocp.args.JsonSave(run._asdict())
      ),
      metrics={name: float(value) for name, value in metrics.items()},
    )

  def read_run(self, step: int) -> RunRecord:
    """Reads what the checkpoint of `step` says about its run."""
    restored = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))
    return RunRecord(**restored["run"])

  def restore(self, step: int, target: TrainState) -> TrainState:
    """Restores the state of `step`.

    Args:
      step: one that is listed.
      target: `jax.ShapeDtypeStruct` leaves with the shardings to restore onto.
    """
    restored = self._manager.restore(
      step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target._asdict()))
    )
    return TrainState(**restored["state"])

  def wait(self) -> None:
    """Returns when every save has reached the disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Finishes what is under way."""
    self._manager.close()


def _mean_ap(metrics: Mapping[str, float]) -> float:
  return metrics["mAP"]


def run_record(config: Config, num_people: int, steps_per_epoch: int) -> RunRecord:
  """Returns the record to store with the checkpoints of a run."""
  values = json.loads(json.dumps(config.to_dict()))
  return RunRecord(values, num_people, steps_per_epoch)


def check_same_run(workdir: Path, stored: RunRecord, current: RunRecord) -> None:
  """Checks that a workdir's checkpoints can be continued.

  Raises:
    CheckpointError: names the fields in which the run that made them differs.
  """
  differing = [
    f"  {name}: {old!r} there, {new!r} now"
    for name, old, new in _differences(stored._asdict(), current._asdict(), "")
    if not name.removeprefix("config.").startswith(FREE_FIELDS)
  ]
  if differing:
    raise CheckpointError(
      f"{workdir}: the checkpoints there are of another run:\n"
      + "\n".join(differing)
      + "\nUse another --workdir, or the same config."
    )


def _differences(old: Any, new: Any, path: str) -> list[tuple[str, Any, Any]]:
  """Returns (dotted name, old, new) for each leaf that differs."""
  if not (isinstance(old, dict) and isinstance(new, dict)):
    return [] if old == new else [(path, old, new)]
  found = []
  for name in sorted(old.keys() | new.keys()):
    child = f"{path}.{name}" if path else name
    found += _differences(old.get(name), new.get(name), child)
  return found


def abstract_state(state: Any, sharding: jax.sharding.Sharding) -> Any:
  """Returns `state`'s shapes and dtypes with `sharding`, as `restore` wants them."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state
  )
