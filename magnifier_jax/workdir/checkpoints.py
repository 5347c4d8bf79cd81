"""Checkpoints of a run through Orbax: the newest and the best, each with its config and metrics."""

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from magnifier_jax.config import Config
from magnifier_jax.errors import UserError
from magnifier_jax.files.whole_file import write_json
from magnifier_jax.train_state import TrainState, Tree, Weights
from magnifier_jax.workdir.checkpoint_files import find_damage, write_manifest
from magnifier_jax.workdir.metrics_log import say
from magnifier_jax.workdir.old_records import with_todays_fields

_METRICS = "metrics.json"
_STATE = "state"  # the folder of the arrays
_SECONDS_TO_STOP_WRITING = 10
_HALF_WRITTEN = ".orbax-checkpoint-tmp"  # how Orbax ends the name of a folder that is being written

# Orbax warns, from every process, that what is opened to be read is only read.
_NOT_WORTH_A_WARNING = ("Given directory is read only", "CheckpointManagerOptions.read_only=True")
logging.get_absl_logger().addFilter(
  lambda record: not str(record.msg).startswith(_NOT_WORTH_A_WARNING)
)

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
)


class CheckpointError(UserError):
  """A workdir has no usable checkpoint, or one of another run."""


class RunRecord(NamedTuple):
  """What a checkpoint says about its run beside the arrays."""

  config: dict[str, Any]  # JSON values
  num_people: int  # N, identities of the training set
  steps_per_epoch: int


class Checkpoints:
  """Checkpoints under `workdir/checkpoints/STEP/{state, run, manifest.json, metrics.json}`.

  Saving is asynchronous and atomic: a checkpoint that is listed is complete. `metrics.json` follows
  when the checkpoint has been evaluated. What is neither among the newest `keep` nor the best by
  mAP is deleted.

  Args:
    workdir: of the run.
    keep: how many of the newest stay; the one before a damaged one is what a run goes on from.
    read_only: nothing is created, saved, renamed or cleaned up.
  """

  def __init__(self, workdir: Path, keep: int = 2, read_only: bool = False):
    self.directory = workdir.absolute() / "checkpoints"
    self._keep = keep
    self._damaged: list[int] = []
    if not read_only:
      self._name_half_written()
    options = ocp.CheckpointManagerOptions(
      async_options=ocp.AsyncOptions(post_finalization_callback=self._list_files),
      cleanup_tmp_directories=not read_only,
      create=not read_only,
      read_only=read_only,
    )
    self._manager = ocp.CheckpointManager(
      self.directory,
      options=options,
      item_handlers={"state": ocp.StandardCheckpointHandler(), "run": ocp.JsonCheckpointHandler()},
    )
    # Read once: all processes must come to the same decisions, whatever their file systems cache.
    found = {step: self._read_metrics(step) for step in self._manager.all_steps()}
    self._metrics = {step: metrics for step, metrics in found.items() if metrics is not None}

  def latest_step(self) -> int | None:
    """Returns the step of the newest checkpoint, damaged or not, or None."""
    return self._manager.latest_step()

  def intact_step(self, best: bool = False) -> int | None:
    """Returns the newest checkpoint whose files are whole; None when there is no checkpoint.

    Damaged ones before it are named on the console.

    Args:
      best: the best by mAP instead; the newest where none was evaluated.

    Raises:
      CheckpointError: when all are damaged.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    if best:
      steps.sort(key=self._mean_ap, reverse=True)
    damages = []
    for step in steps:
      damage = self._damage(step)
      if damage is None:
        return step
      self._damaged.append(step)
      damages.append(f"  {self._folder(step)}: {damage}")
      say(f"checkpoint of step {step} is damaged and skipped: {self._folder(step)}: {damage}")
    if damages:
      raise CheckpointError(
        "every checkpoint is damaged:\n"
        + "\n".join(damages)
        + "\nNothing was changed there. Restore one from a copy, or use another --workdir."
      )
    return None

  def set_aside_damaged(self) -> None:
    """Renames what `intact_step` skipped, so that the run can save those steps again."""
    for step in self._damaged:
      aside = self._folder(step).with_name(f"{step}.damaged")
      number = 1
      while aside.exists():
        number += 1
        aside = aside.with_name(f"{step}.damaged-{number}")
      say(f"it is set aside as {aside}; delete it when you do not need it")
      if jax.process_index() == 0:
        self._folder(step).rename(aside)
      self._metrics.pop(step, None)
    if self._damaged:
      multihost_utils.sync_global_devices("set aside damaged checkpoints")
      self._manager.reload()
      self._damaged.clear()

  def save(self, state: TrainState, run: RunRecord) -> None:
    """Starts saving; returns once the arrays are copied. A step that is there already is kept."""
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    self.wait()
    self._delete_superseded()
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state.stored()), run=ocp.args.JsonSave(run._asdict())
      ),
    )

  def record(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds to a checkpoint what its evaluation found; with that, others may be superseded."""
    self.wait()
    self._metrics[step] = {name: float(value) for name, value in metrics.items()}
    if jax.process_index() == 0:
      write_json(self._folder(step) / _METRICS, self._metrics[step])
    self._delete_superseded()

  def discard(self, step: int) -> None:
    """Deletes what there is of a checkpoint whose saving failed."""
    deadline = time.monotonic() + _SECONDS_TO_STOP_WRITING
    while time.monotonic() < deadline:
      halves = [self._folder(step), *self.directory.glob(f"{step}{_HALF_WRITTEN}*")]
      for folder in halves:
        shutil.rmtree(folder, ignore_errors=True)
      time.sleep(0.2)  # Orbax's threads may be writing on
      if not any(folder.exists() for folder in halves):
        return

  def metrics(self, step: int) -> Mapping[str, float] | None:
    """Returns what the evaluation of a checkpoint found; None before one."""
    return self._metrics.get(step)

  def read_run(self, step: int) -> RunRecord:
    """Reads what the checkpoint of `step` says about its run.

    Raises:
      CheckpointError: when its files are damaged.
    """
    with self._telling_damage(step):
      restored = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))
    return RunRecord(**with_todays_fields(restored["run"]))

  def restore(self, step: int, target: TrainState) -> TrainState:
    """Restores the state of `step`.

    Args:
      step: one that `intact_step` returned.
      target: `jax.ShapeDtypeStruct` leaves with the shardings to restore onto.

    Raises:
      CheckpointError: when its files are damaged, or deleted meanwhile.
    """
    with self._telling_damage(step):
      restored = self._manager.restore(
        step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target.stored()))
      )
    return TrainState(**restored["state"])

  def restore_weights(self, step: int, weights: Weights) -> Weights:
    """Restores the weights of `step`, averaged ones where it has such; nothing else is read.

    Args:
      step: one that `intact_step` returned.
      weights: `jax.ShapeDtypeStruct` leaves with the shardings to restore onto.

    Raises:
      CheckpointError: when the checkpoint is of a network with other arrays, or its files are
        damaged, or deleted meanwhile.
    """
    target = weights._asdict()
    with self._telling_damage(step), ocp.PyTreeCheckpointer() as reader:
      state = self._manager.item_metadata(step)["state"]
      averaged = state.get("average") is not None
      self._check_weights(step, state["average"] if averaged else state, target)
      target = {"average": target} if averaged else target
      arguments = ocp.args.PyTreeRestore(
        target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        partial_restore=True,
      )
      restored = reader.restore(self._folder(step) / _STATE, arguments)
    return Weights(**(restored["average"] if averaged else restored))

  def wait(self) -> None:
    """Returns when every save has reached the disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Finishes what is under way."""
    self._manager.close()

  def _check_weights(self, step: int, stored: Tree, target: dict[str, Tree]) -> None:
    """Raises `CheckpointError` unless the weights of a checkpoint are the target's.

    A partial restore leaves out silently whatever only one of the two has.
    """
    there, wanted = (_shapes({name: tree[name] for name in target}) for tree in (stored, target))
    differing = [
      f"  {name}: {there.get(name, 'nothing')} there, {wanted.get(name, 'nothing')} now"
      for name in sorted(there.keys() | wanted.keys())
      if there.get(name) != wanted.get(name)
    ]
    if differing:
      raise CheckpointError(
        f"{self._folder(step)}: of a network with other arrays:\n"
        + "\n".join(differing)
        + "\nOpen it with the version of this program that wrote it."
      )

  def _folder(self, step: int) -> Path:
    return self.directory / str(step)

  def _damage(self, step: int) -> str | None:
    """Returns what is wrong with a checkpoint; process 0 decides, and only it knows what."""
    damage = find_damage(self._folder(step)) if jax.process_index() == 0 else None
    damaged = multihost_utils.broadcast_one_to_all(np.array(damage is not None))
    return (damage or "see process 0") if damaged else None

  @contextmanager
  def _telling_damage(self, step: int) -> Iterator[None]:
    """Makes one line of whatever Orbax raises at files that are damaged, or that somebody deletes.

    This process alone looks at them: the others may have read what it did not.
    """
    try:
      yield
    except UserError:
      raise
    except Exception as error:
      damage = find_damage(self._folder(step))
      if damage is None:
        raise
      raise CheckpointError(
        f"{self._folder(step)}: {damage}; it was whole a moment ago: do not change a workdir while "
        "it is read"
      ) from error

  def _list_files(self) -> None:
    """Completes a checkpoint; Orbax calls it before it gives the folder its final name."""
    if jax.process_index() == 0:
      for folder in self.directory.glob(f"*{_HALF_WRITTEN}"):
        write_manifest(folder)

  def _name_half_written(self) -> None:
    for folder in sorted(self.directory.glob(f"*{_HALF_WRITTEN}")):
      step = folder.name.removesuffix(_HALF_WRITTEN)
      say(f"saving of step {step} was cut short; what there is of it is not used")

  def _mean_ap(self, step: int) -> float:
    return self._metrics[step]["mAP"] if step in self._metrics else -math.inf

  def _delete_superseded(self) -> None:
    steps = sorted(self._manager.all_steps())
    best = max(self._metrics, key=self._mean_ap, default=None)
    for step in steps[: -self._keep]:
      if step != best:
        self._manager.delete(step)
        self._metrics.pop(step, None)

  def _read_metrics(self, step: int) -> dict[str, float] | None:
    path = self._folder(step) / _METRICS
    try:
      metrics = json.loads(path.read_text())
      float(metrics["mAP"])
    except FileNotFoundError:
      return None
    except (OSError, ValueError, KeyError, TypeError):
      say(f"{path} is damaged: step {step} counts as not evaluated")
      return None
    return metrics


def run_record(config: Config, num_people: int, steps_per_epoch: int) -> RunRecord:
  """Returns the record to store with the checkpoints of a run."""
  values = json.loads(json.dumps(config.to_dict()))
  return RunRecord(values, num_people, steps_per_epoch)


def check_same_run(workdir: Path, stored: RunRecord, current: RunRecord) -> None:
  """Checks that a workdir's checkpoints can be continued.

  Raises:
    CheckpointError: names the fields in which the run that made them differs.
  """
  free = set(FREE_FIELDS)
  if current.config["optimizer"]["schedule"] == "cosine":
    free -= {"training.num_epochs"}  # the rate of every step depends on it
  differing = [
    f"  {name}: {old!r} there, {new!r} now"
    for name, old, new in _differences(stored._asdict(), current._asdict(), "")
    if not name.removeprefix("config.").startswith(tuple(free))
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


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """Returns {dotted name: shape} of all arrays."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
    for path, leaf in leaves
  }


def abstract_state(state: Any, sharding: jax.sharding.Sharding) -> Any:
  """Returns `state`'s shapes and dtypes with `sharding`, as `restore` wants them."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state
  )
