"""Results of several runs: read from their workdirs, grouped by config, averaged over seeds."""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from magnifier_jax.errors import UserError
from magnifier_jax.evaluation.occlusion_results import OCCLUSION, OcclusionResults
from magnifier_jax.evaluation.protocol import CROSS_CAMERA, rule_in_words
from magnifier_jax.evaluation.thresholds import THRESHOLDS
from magnifier_jax.report.published import (
  PublishedResult,
  PublishedTable,
  joined_names,
  published_row,
  published_table,
)
from magnifier_jax.report.reference_settings import differences_from_reference, leaves
from magnifier_jax.workdir.checkpoints import FREE_FIELDS, Checkpoints
from magnifier_jax.workdir.metrics_log import read_records
from magnifier_jax.workdir.old_records import with_todays_fields
from magnifier_jax.workdir.origin import ORIGIN
from magnifier_jax.workdir.result_folders import METRICS, folders_with_results, results_folder

WHOLE = "all"  # the row of the whole embedding

# What `metrics.json` holds beside the rows of results.
_NO_ROWS = (OCCLUSION, THRESHOLDS)

# Of the fields that a run's continuation may change, those that change its results.
_RESULT_FIELDS = (
  "data.validation_people",
  "evaluation.camera_rule",
  "evaluation.flip",
  "evaluation.rerank",
)

# What is read of a stored config by name. Other fields may be missing in one of an earlier version.
_NEEDED = frozenset({"name", "seed", "model", "data", "loss", "training", "evaluation"})


class CompareError(UserError):
  """A workdir has no results, damaged ones, or ones that cannot stand beside the others."""


class Statistic(NamedTuple):
  """A metric over the seeds of a group, as a fraction."""

  mean: float
  spread: float  # sample standard deviation; NaN for a single seed
  values: tuple[float, ...]  # in the order of the seeds


@dataclasses.dataclass(frozen=True)
class RunResult:
  """What one workdir holds.

  Attributes:
    workdir: of the run.
    config: nested, as it was trained and evaluated.
    step: updates done; None where it is not known.
    steps_per_epoch: of its training; None where nothing was trained.
    validation_people: how many training people it was measured on; 0 for the test people.
    chosen_on: whose mAP chose the checkpoint, 'test people' or 'validation people'; '' for the
      newest one.
    tested_on: the data set that it was measured on.
    rows: {row: {metric: fraction}}; the whole embedding is 'all'.
    untrained: {metric: fraction} of the whole embedding before the first update, if measured.
    initial_weights: where its weights came from, with the SHA-256 of a file; None if drawn.
    occlusion: what was found with something hidden in the queries; None if not measured.
  """

  workdir: Path
  config: Mapping[str, Any]
  step: int | None
  steps_per_epoch: int | None
  validation_people: int
  chosen_on: str
  tested_on: str
  rows: Mapping[str, Mapping[str, float]]
  untrained: Mapping[str, float] | None
  initial_weights: Mapping[str, Any] | None
  occlusion: OcclusionResults | None

  @property
  def seed(self) -> int:
    """The seed of the run."""
    return self.config["seed"]

  @property
  def test_set(self) -> str:
    """The data set, the people if they are not the test people, and the rule if not the usual."""
    people = f"{self.validation_people} validation people" if self.validation_people else ""
    rule = "" if self.camera_rule == CROSS_CAMERA else f"camera_rule={self.camera_rule}"
    return ", ".join(filter(None, (self.tested_on, people, rule)))

  @property
  def camera_rule(self) -> str:
    """Which rule about cameras it was measured by."""
    return self.config["evaluation"]["camera_rule"]

  @property
  def trained_on(self) -> str | Sequence[str]:
    """The data set that it was trained on; of several, all."""
    return self.config["data"]["dataset"]

  @property
  def folder(self) -> Path:
    """Where its results lie."""
    return results_folder(self.workdir, self.trained_on, self.tested_on)

  @property
  def published(self) -> PublishedTable:
    """The published accuracies that may stand beside the run's."""
    return published_table(
      self.tested_on, self.validation_people, self.trained_on, self.camera_rule
    )


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that differ in nothing but the seed.

  Attributes:
    name: the config's; where several groups share one, with what tells them apart.
    runs: at least one, by seed.
  """

  name: str
  runs: tuple[RunResult, ...]

  @property
  def config(self) -> Mapping[str, Any]:
    """The config that the runs share, with the first one's seed."""
    return self.runs[0].config

  @property
  def seeds(self) -> tuple[int, ...]:
    """The seeds of the runs."""
    return tuple(run.seed for run in self.runs)

  @property
  def step(self) -> int | None:
    """Updates done by each run."""
    return self.runs[0].step

  @property
  def rows(self) -> list[str]:
    """The rows of results that every run has."""
    return [row for row in self.runs[0].rows if all(row in run.rows for run in self.runs)]

  def metrics(self, row: str) -> list[str]:
    """Returns the accuracies that a row of results has in every run."""
    first, *others = (run.rows[row] for run in self.runs)
    return [
      name
      for name in first
      if not name.startswith("num_") and all(name in other for other in others)
    ]

  def statistic(self, row: str, metric: str) -> Statistic:
    """Returns a metric of a row of results over the seeds; NaN where it was not measured."""
    return statistic([run.rows[row].get(metric, math.nan) for run in self.runs])

  def untrained(self, metric: str) -> Statistic | None:
    """Returns a metric of the whole embedding before training; None unless each run has it."""
    measured = [run.untrained for run in self.runs if run.untrained is not None]
    if len(measured) < len(self.runs):
      return None
    return statistic([summary.get(metric, math.nan) for summary in measured])

  @property
  def trained_on_others(self) -> str:
    """What was trained on, where that is not the test set alone; else ''."""
    run = self.runs[0]
    return "" if run.trained_on == run.tested_on else joined_names(run.trained_on)

  @property
  def chosen_on(self) -> str:
    """Whose mAP chose the checkpoints; '' for the newest ones."""
    return self.runs[0].chosen_on

  def published_row(self, row: str) -> str:
    """Returns the name of the published row that measures the same as a row of results, or ''."""
    return published_row(self.config, row, self.runs[0].published)

  def published(self, row: str) -> PublishedResult | None:
    """Returns the published numbers, in percent, of what a row of results measures."""
    return self.runs[0].published.rows.get(self.published_row(row))

  def differences_from_reference(self) -> list[str]:
    """Returns the settings that are not the authors'."""
    return differences_from_reference(self.config)


@dataclasses.dataclass(frozen=True)
class RunComparison:
  """Groups whose numbers may stand beside one another: all of one test set.

  Attributes:
    dataset: its name, that of the people if they are not the test people, and the rule about
      cameras if it is not the usual one.
    groups: in the order in which they were named.
    published_source: where the published numbers stand.
  """

  dataset: str
  groups: tuple[Group, ...]
  published_source: str

  @property
  def rule(self) -> str:
    """What a query was compared with, a sentence."""
    evaluation = self.groups[0].config["evaluation"]
    return rule_in_words(evaluation["camera_rule"], evaluation["single_shot_draws"])

  @property
  def rows(self) -> list[str]:
    """The rows of results that any group has: the branches first, the whole embedding last."""
    rows = dict.fromkeys(row for group in self.groups for row in group.rows)
    return [row for row in rows if not row.startswith(WHOLE)] + [
      row for row in rows if row.startswith(WHOLE)
    ]


def statistic(values: Sequence[float]) -> Statistic:
  """Returns what a metric is over the seeds."""
  spread = statistics.stdev(values) if len(values) > 1 else math.nan
  return Statistic(statistics.fmean(values), spread, tuple(values))


def compare(workdirs: Sequence[Path]) -> list[RunComparison]:
  """Reads and groups the results of runs.

  Args:
    workdirs: of evaluated runs, in the order in which to show them.

  Returns:
    One comparison for each test set.

  Raises:
    CompareError: on a workdir without results or with damaged ones, and on two of one config and
      seed.
    MetricsFileError: on a damaged `metrics.jsonl`.
  """
  sets: dict[str, list[RunResult]] = {}
  for workdir in workdirs:
    for result in read_results(workdir):
      sets.setdefault(result.test_set, []).append(result)
  return [
    RunComparison(dataset, _groups(results), _published_source(results))
    for dataset, results in sets.items()
  ]


def _published_source(results: Sequence[RunResult]) -> str:
  """Returns where the published numbers beside some results stand; what is said where none do."""
  tables = [result.published for result in results]
  sources = dict.fromkeys(table.source for table in tables if table.rows)
  return "; ".join(sources) or tables[0].source


def read_run(workdir: Path) -> RunResult:
  """Reads the results of a run, of several test sets the first; as `read_results`."""
  return read_results(workdir)[0]


def read_results(workdir: Path) -> list[RunResult]:
  """Reads the results of a run, those on other data than it was trained on too.

  Raises:
    CompareError: when there are none, or they are damaged.
    MetricsFileError: on a damaged `metrics.jsonl`.
  """
  folders = folders_with_results(workdir)
  if not folders:
    raise CompareError(
      f"{workdir / METRICS}: no results there; train the run, or evaluate it with --mode=evaluate"
    )
  return [_read_result(workdir, folder / METRICS) for folder in folders]


def _read_result(workdir: Path, path: Path) -> RunResult:
  metrics = _read_json(path, "no results there")
  rows = {
    name: row for name, row in metrics.items() if isinstance(row, dict) and name not in _NO_ROWS
  }
  if not all(isinstance(row.get("mAP"), float) for row in (rows.get(WHOLE, {}), *rows.values())):
    raise CompareError(f"{path}: not a table of results; evaluate the run again")
  record = _stored_record(workdir)
  config = record["config"]
  tested_on = metrics.get("dataset", config["data"]["dataset"])
  # What an evaluation may do otherwise than the training; earlier versions did not write it all.
  chosen_on = metrics.get("checkpoint_chosen_on", "")
  evaluation = config["evaluation"] | {
    "flip": metrics.get("flip", config["evaluation"]["flip"]),
    "camera_rule": metrics.get("camera_rule", CROSS_CAMERA),
    "single_shot_draws": metrics.get("single_shot_draws", 0),
    "checkpoint": "best" if chosen_on else "latest",
  }
  return RunResult(
    workdir=workdir,
    config=config | {"evaluation": evaluation},
    step=metrics.get("step"),
    steps_per_epoch=record.get("steps_per_epoch") or None,
    validation_people=metrics.get("validation_people", config["data"].get("validation_people", 0)),
    chosen_on=chosen_on,
    tested_on=tested_on,
    rows=rows,
    # The log is of the data set that was trained on.
    untrained=_untrained(workdir) if tested_on == config["data"]["dataset"] else None,
    initial_weights=_initial_weights(workdir),
    occlusion=_occlusion(metrics, path),
  )


def _occlusion(metrics: Mapping[str, Any], path: Path) -> OcclusionResults | None:
  try:
    return OcclusionResults.from_json(metrics)
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise CompareError(f"{path}: {OCCLUSION}: damaged; evaluate the run again") from error


def _read_json(path: Path, when_missing: str) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise CompareError(f"{path}: {when_missing}") from error
  except (OSError, ValueError) as error:
    raise CompareError(f"{path}: cannot be read ({error}); evaluate the run again") from error
  if not isinstance(content, dict):
    raise CompareError(f"{path}: not a JSON object; evaluate the run again")
  return content


def _stored_record(workdir: Path) -> Mapping[str, Any]:
  """Returns `config.json`, or the checkpoint's record: a converted checkpoint has no other."""
  path = workdir / "config.json"
  if path.exists():
    record = _read_json(path, "")
  else:
    checkpoints = Checkpoints(workdir, read_only=True)
    step = checkpoints.latest_step()
    if step is None:
      raise CompareError(f"{workdir}: neither config.json nor a checkpoint says what it is of")
    record = checkpoints.read_run(step)._asdict()
  config = record.get("config")
  if not isinstance(config, dict) or not config.keys() >= _NEEDED:
    raise CompareError(f"{path}: not the record of a run; start the run again, which writes it")
  return with_todays_fields(record)


def _untrained(workdir: Path) -> Mapping[str, float] | None:
  for record in read_records(workdir):
    if record["step"] == 0 and "eval/mAP" in record:
      return {
        name.removeprefix("eval/"): value
        for name, value in record.items()
        if name.startswith("eval/")
      }
  return None


def _initial_weights(workdir: Path) -> Mapping[str, Any] | None:
  path = workdir / ORIGIN
  return _read_json(path, "") if path.exists() else None


def _groups(runs: Sequence[RunResult]) -> tuple[Group, ...]:
  found: list[list[RunResult]] = []
  for run in runs:
    same = next((group for group in found if not _differences(group[0], run)), None)
    if same is None:
      found.append([run])
      continue
    for other in same:
      if other.seed == run.seed:
        raise CompareError(
          f"{other.workdir} and {run.workdir} are one config with one seed, {run.seed}; name one"
        )
    same.append(run)
  ordered = [tuple(sorted(group, key=lambda run: run.seed)) for group in found]
  return tuple(Group(_group_name(group, ordered), group) for group in ordered)


def _differences(one: RunResult, other: RunResult) -> list[str]:
  """Returns what tells two runs apart beside their seeds, 'field: value' of the other."""
  ours, theirs = (
    result_fields(run.config) | {"step": run.step, "checkpoint chosen on": run.chosen_on or "none"}
    for run in (one, other)
  )
  return [
    f"{name}: {theirs.get(name, 'not recorded')}"
    for name in sorted(ours.keys() | theirs.keys())
    if name != "seed" and (name not in ours or name not in theirs or ours[name] != theirs[name])
  ]


def _group_name(group: Sequence[RunResult], groups: Sequence[Sequence[RunResult]]) -> str:
  name = group[0].config["name"]
  others = [other for other in groups if other[0].config["name"] == name]
  if others[0] is group:
    return name
  return f"{name} ({', '.join(_differences(others[0][0], group[0]))})"


def result_fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {dotted name: value} of the fields that decide the results of so many updates."""
  return {name: value for name, value in leaves(config) if _decides_results(name)}


def _decides_results(field: str) -> bool:
  if field.startswith(_RESULT_FIELDS):
    return True
  return field != "name" and not field.startswith(FREE_FIELDS)
