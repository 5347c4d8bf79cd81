"""The training loop. Its order is fixed:

1. Restore the newest whole checkpoint, or draw weights and read what `config.init` names.
2. Write `config.json`; cut the log back to the restored step.
3. Evaluate, if the run is fresh and the config asks for it, or if it was stopped between a
   checkpoint and its evaluation.
4. For each step: take a batch, update, check and log the losses of the step before.
5. Where an epoch ends that is to be evaluated, or SIGTERM came: save, then evaluate.
6. At the end: rank in every way that the config asks for; write `metrics.json` and `report.html`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from magnifier_jax.config import Config
from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.data.dataset import ReidDataset
from magnifier_jax.data.pipeline import train_batches, train_sampler
from magnifier_jax.data.training_set import TrainingSet, training_set
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.devices.preemption import Preempted, Preemption
from magnifier_jax.embed_dataset import DatasetEmbedder, TestEmbeddings
from magnifier_jax.errors import UserError
from magnifier_jax.evaluate import publish
from magnifier_jax.evaluation.metric_names import HEADINGS
from magnifier_jax.evaluation.ranking import RankingMetrics
from magnifier_jax.files.disk_space import full_disk_named
from magnifier_jax.files.whole_file import write_json
from magnifier_jax.query_occlusion.measurement import check_occlusion
from magnifier_jax.report.provenance import provenance
from magnifier_jax.train_state import TrainState
from magnifier_jax.train_step import (
  StepMetrics,
  Trainer,
  compile_step,
  create_trainer,
  draw_state,
)
from magnifier_jax.weights.initialization import initialize
from magnifier_jax.workdir.checkpoints import (
  Checkpoints,
  RunRecord,
  abstract_state,
  check_same_run,
  run_record,
)
from magnifier_jax.workdir.lock import locked
from magnifier_jax.workdir.metrics_log import MetricsLog, Progress, flatten, say
from magnifier_jax.workdir.training_data import write_training_data


class DivergenceError(UserError):
  """A loss or the gradient is no longer finite."""


def train(config: Config, workdir: Path, preemption: Preemption | None = None) -> RankingMetrics:
  """Trains a run from where its workdir stands to its last epoch.

  Args:
    config: of the run.
    workdir: gets checkpoints, `metrics.jsonl`, TensorBoard events and `config.json`.
    preemption: tells when to save and leave; None: never.

  Returns:
    The metrics of the trained network on the test people; of several data sets, the first one's.

  Raises:
    DivergenceError: on a loss that is not finite; the last checkpoint stays.
    CheckpointError: when the workdir holds another run, or nothing but damaged checkpoints.
    WorkdirInUseError: when another process trains there.
    DiskFullError, WriteError: when something could not be written; the last checkpoint stays.
    Preempted: when the state was saved because `preemption` asked for it.
    ConfigError, SourceError, DeviceError: when the run cannot start.
  """
  run = _make_run(config, workdir, preemption or Preemption())
  intact = "Earlier checkpoints are intact, and the same command goes on from the newest."
  with locked(workdir, say), full_disk_named(workdir, intact):
    return run.run()


def _make_run(config: Config, workdir: Path, preemption: Preemption) -> "_Run":
  """Opens the data and builds the network of a run; nothing is written in its workdir yet.

  Raises:
    ConfigError, SourceError, DeviceError: when the run cannot start.
  """
  check_occlusion(config)
  mesh = mesh_lib.data_mesh()
  mesh_lib.check_batch_size(
    config.data.batch_size, mesh, "config.data: identities_per_batch × images_per_identity"
  )
  datasets = [dataset_lib.load(config.data.of(name)) for name in config.data.datasets]
  training = training_set(datasets)
  for note in train_sampler(training, config).notes():
    say(f"note: {note}")
  epoch = steps_per_epoch(config, training)
  trainer = create_trainer(config, training.train.num_people, epoch, mesh)
  tests = tuple(DatasetEmbedder(config, dataset, trainer.network, mesh) for dataset in datasets)
  return _Run(config, workdir, preemption, mesh, training, epoch, trainer, tests)


@dataclasses.dataclass
class _Run:
  """What the parts of one training run share."""

  config: Config
  workdir: Path  # is there, and locked, while `run` runs
  preemption: Preemption
  mesh: Mesh
  training: TrainingSet
  steps_per_epoch: int
  trainer: Trainer  # for as many people as are trained on
  tests: tuple[DatasetEmbedder, ...]  # of the trainer's network, on each data set
  checkpoints: Checkpoints = dataclasses.field(init=False)  # opened by `run`
  log: MetricsLog = dataclasses.field(init=False)  # opened by `run`

  @property
  def num_steps(self) -> int:
    return self.config.training.num_epochs * self.steps_per_epoch

  @property
  def record(self) -> RunRecord:
    return run_record(self.config, self.training.train.num_people, self.steps_per_epoch)

  def run(self) -> RankingMetrics:
    """Restores, trains, saves and evaluates, in that order; then shows the results."""
    self.checkpoints = Checkpoints(self.workdir, self.config.training.keep_checkpoints)
    state = self._restore_or_init()
    first_step = int(state.step)
    _write_config(self.workdir, self.record)
    write_training_data(self.workdir, list(map(str, self.training.counts)))
    evaluated = self.checkpoints.metrics(first_step) is not None
    self.log = MetricsLog(self.workdir, first_step, evaluated)
    say(self._describe(first_step))
    evaluation = untrained = None
    if first_step == 0 and self.config.evaluation.initial:
      untrained = self._evaluate(state, "untrained")
    if first_step > 0 and not evaluated and self._is_evaluation_due(first_step):
      # The run was stopped after it had saved this step and before it knew the metrics.
      evaluation = self._evaluate_checkpoint(state)
    for trained in self._train_from(state, first_step):
      state = trained
      self._save(state)
      evaluation = self._evaluate_checkpoint(state)
    self.checkpoints.close()
    self.preemption.release()  # from here on a checkpoint manager can no longer be asked
    self.log.close()
    metrics = self._publish(state, evaluation)
    if untrained is not None:
      say(f"\nuntrained  {format_summary(untrained.means())}")
    say(f"trained    {format_summary(_means(list(metrics.values())))}")
    return next(iter(metrics.values()))

  def _publish(
    self, state: TrainState, evaluated: "_Evaluation | None"
  ) -> Mapping[str, RankingMetrics]:
    """Shows the results of the last state on each data set; returns the whole embedding's."""
    found = {}
    for test in self.tests:
      name = test.dataset.name
      config = self.config.on(name)
      if evaluated is None:
        embeddings = test.embeddings(*state.weights)
      else:
        embeddings = evaluated.embeddings[name]
      source = provenance(config, self.record, int(state.step), chosen=False)
      results = publish(config, source, self.workdir, test.dataset, test, state.weights, embeddings)
      found[name] = next(iter(results.values()))
    return found

  def _restore_or_init(self) -> TrainState:
    latest = self.checkpoints.intact_step()
    if latest is None:
      say(f"fresh start, seed {self.config.seed}, config.init.backbone {self.config.init.backbone}")
      drawn = draw_state(self.trainer, self.config.seed)
      return initialize(drawn, self.config, self.workdir, say)
    check_same_run(self.workdir, self.checkpoints.read_run(latest), self.record)
    self.checkpoints.set_aside_damaged()
    say(f"resuming from step {latest} in {self.checkpoints.directory}")
    shapes = self.trainer.init.eval_shape(self.config.seed)
    return self.checkpoints.restore(latest, abstract_state(shapes, mesh_lib.replicated(self.mesh)))

  def _train_from(self, state: TrainState, first_step: int) -> Iterator[TrainState]:
    """Trains; yields the state whenever it is time to save, and at the end."""
    batches = train_batches(
      self.training,
      self.config,
      first_step,
      self.num_steps,
      jax.process_index(),
      jax.process_count(),
    )
    progress = Progress(self.num_steps, first_step)
    in_flight: tuple[int, StepMetrics] | None = None
    global_batches = mesh_lib.prefetch(batches, self.mesh)
    update = None
    for step, batch in enumerate(global_batches, start=first_step + 1):
      update = update or compile_step(self.trainer, state, batch)
      state, metrics = update(state, batch)
      self.preemption.hold()
      # Fetched one step late, so that the next update is already running.
      self._finish(in_flight, progress)
      in_flight = (step, metrics)
      if self.preemption.poll() or self._is_evaluation_due(step):
        self._finish(in_flight, progress)
        in_flight = None
        yield state
        progress.restart()

  def _is_evaluation_due(self, step: int) -> bool:
    every = self.config.evaluation.every_epochs * self.steps_per_epoch
    return step % every == 0 or step == self.num_steps

  def _save(self, state: TrainState) -> None:
    """Starts saving; ends the run where that has been asked for.

    Raises:
      Preempted: once the state is on the disk.
    """
    self.log.flush()
    self.checkpoints.save(state, self.record)
    if self.preemption.agreed:
      self.checkpoints.close()
      self.log.close()
      # A launcher ends the others as soon as one has left, which would be their second SIGTERM.
      multihost_utils.sync_global_devices("saved because of SIGTERM")
      self.preemption.release()
      raise Preempted(f"SIGTERM: step {int(state.step)} is saved; the same command goes on from it")
    self.preemption.release(self.checkpoints.wait)

  def _evaluate_checkpoint(self, state: TrainState) -> "_Evaluation":
    step = int(state.step)
    evaluation = self._evaluate(state, f"epoch {step // self.steps_per_epoch}")
    self.checkpoints.record(step, evaluation.means())
    return evaluation

  def _finish(self, in_flight: tuple[int, StepMetrics] | None, progress: Progress) -> None:
    """Checks one step's losses, and logs them where it is time."""
    if in_flight is None:
      return
    step, metrics = in_flight[0], jax.device_get(in_flight[1])
    scalars = flatten(metrics.losses._asdict(), "loss")
    scalars["grad_norm"] = float(metrics.grad_norm)
    self._check_finite(step, scalars)
    progress.update(step)
    if step == progress.first + 1:
      progress.restart()  # the first step has compiled
    if step % self.config.training.log_every_steps == 0 or step == self.num_steps:
      images_per_second = progress.rate * self.config.data.batch_size
      self._log_step(step, scalars, images_per_second, progress.left())

  def _log_step(
    self, step: int, scalars: dict[str, float], images_per_second: float, left: str
  ) -> None:
    learning_rate = float(self.trainer.schedule(np.int32(step - 1)))
    epoch = step / self.steps_per_epoch
    self.log.write(
      step,
      scalars
      | {
        "learning_rate": learning_rate,
        "epoch": epoch,
        "images_per_second": images_per_second,
      },
    )
    shown = {
      name: scalars[f"loss/{name}"]
      for name in ("global_id", "global_triplet", "adversarial_id", "fusion_id", "segmentation")
      if f"loss/{name}" in scalars
    }
    terms = "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
    say(
      f"step {step}/{self.num_steps}  epoch {epoch:.2f}  loss {scalars['loss/total']:.3f}  {terms}"
      f"  lr {learning_rate:.2g}  {images_per_second:.0f} img/s  {left} left"
    )

  def _check_finite(self, step: int, scalars: dict[str, float]) -> None:
    broken = [name for name, value in scalars.items() if not np.isfinite(value)]
    if not broken:
      return
    self.checkpoints.wait()
    last = self.checkpoints.latest_step()
    kept = f"the checkpoint of step {last} is intact" if last else "no checkpoint was written yet"
    raise DivergenceError(
      f"step {step}: {', '.join(broken)} is no longer finite; {kept} "
      f"({self.checkpoints.directory}). Lower config.optimizer.learning_rate, or lengthen "
      "config.optimizer.warmup_epochs."
    )

  def _evaluate(self, state: TrainState, when: str) -> "_Evaluation":
    """Embeds and ranks the test people of each data set, and logs the means over data sets."""
    embeddings, metrics = {}, {}
    for test in self.tests:
      name = test.dataset.name
      where = f", {name}" * (len(self.tests) > 1)
      say(
        f"evaluating ({when}{where}): {len(test.dataset.query)} queries, "
        f"{len(test.dataset.gallery)} gallery images"
      )
      embeddings[name] = test.embeddings(*state.weights)
      metrics[name] = test.protocol.evaluate(*(side.whole() for side in embeddings[name]))
      say(f"{when}{where}: {format_summary(metrics[name].summary())}")
    evaluation = _Evaluation(embeddings, metrics)
    scalars = {f"eval/{name}": value for name, value in evaluation.means().items()}
    if len(self.tests) > 1:
      for name, found in metrics.items():
        scalars |= {f"eval/{name}/{metric}": value for metric, value in found.summary().items()}
    self.log.write(int(state.step), scalars)
    return evaluation

  def _describe(self, first_step: int) -> str:
    train = self.training.train
    devices = jax.devices()
    parts = "".join(f"  {count}\n" for count in self.training.counts)
    return (
      f"{parts if len(self.tests) > 1 else ''}"
      f"{self.config.name}: {len(train)} images of {train.num_people} people, "
      f"{self.config.data.batch_size} a batch, {self.steps_per_epoch} steps an epoch, "
      f"{self.num_steps - first_step} steps to go on {len(devices)} {devices[0].platform} "
      f"device(s); results in {self.workdir}"
    )


class _Evaluation(NamedTuple):
  """What one evaluation found, by data set."""

  embeddings: Mapping[str, TestEmbeddings]
  metrics: Mapping[str, RankingMetrics]  # of the whole embedding

  def means(self) -> dict[str, float]:
    """Returns the summary; of several data sets each number's mean, by which the best is chosen."""
    return _means(list(self.metrics.values()))


def _means(metrics: Sequence[RankingMetrics]) -> dict[str, float]:
  """Returns the mean of each number of the summaries, of those numbers that all have."""
  summaries = [found.summary() for found in metrics]
  if len(summaries) == 1:
    return summaries[0]
  names = [name for name in summaries[0] if all(name in summary for summary in summaries)]
  return {name: float(np.mean([summary[name] for summary in summaries])) for name in names}


def steps_per_epoch(config: Config, dataset: ReidDataset | TrainingSet) -> int:
  """Returns `config.training.steps_per_epoch`, or training images // batch size where it is 0."""
  automatic = max(1, len(dataset.train) // config.data.batch_size)
  return config.training.steps_per_epoch or automatic


def format_summary(summary: Mapping[str, float]) -> str:
  """Returns the numbers that matter most of `RankingMetrics.summary`, in percent, on one line."""
  names = ("rank1", "rank5", "rank10", "mAP", "mINP")
  line = "  ".join(
    f"{HEADINGS[name]} {100 * summary[name]:.1f} %" for name in names if name in summary
  )
  if summary["num_skipped_queries"]:
    line += f"  ({summary['num_skipped_queries']:g} queries without a match left out)"
  return line


def _write_config(workdir: Path, record: RunRecord) -> None:
  if jax.process_index() == 0:
    write_json(workdir / "config.json", record._asdict())
