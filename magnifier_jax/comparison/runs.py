"""Results of several runs, grouped by config and averaged over seeds."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from magnifier_jax.comparison.run_results import WHOLE, CompareError, RunResult, read_results
from magnifier_jax.evaluation.protocol import rule_in_words
from magnifier_jax.report.published import (
  PublishedResult,
  joined_names,
  published_row,
)
from magnifier_jax.report.reference_settings import differences_from_reference, leaves
from magnifier_jax.workdir.checkpoints import FREE_FIELDS

# Of the fields that a run's continuation may change, those that change its results.
_RESULT_FIELDS = (
  "data.validation_people",
  "evaluation.camera_rule",
  "evaluation.flip",
  "evaluation.rerank",
)


class Statistic(NamedTuple):
  """A metric over the seeds of a group, as a fraction."""

  mean: float
  spread: float  # sample standard deviation; NaN for a single seed
  values: tuple[float, ...]  # in the order of the seeds


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
