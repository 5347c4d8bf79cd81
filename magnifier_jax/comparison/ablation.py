"""Variants and settings of a config × seeds, trained one after the other and compared."""

import os
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from magnifier_jax.comparison.output_files import SUFFIXES, write_comparison
from magnifier_jax.comparison.run_clock import RunClock, RunTimes
from magnifier_jax.comparison.run_results import RunResult, read_run
from magnifier_jax.comparison.runs import compare, result_fields
from magnifier_jax.comparison.tables import as_text
from magnifier_jax.comparison.training_process import run_training
from magnifier_jax.config import Config
from magnifier_jax.config_argument import load_config
from magnifier_jax.errors import UserError
from magnifier_jax.workdir.metrics_log import format_duration
from magnifier_jax.workdir.result_folders import METRICS

_SHOWN_LINES = 3  # of a failed run's console
_FOLLOW_SECONDS = 1.0  # between two looks at how far a run is
_ROW_NAME = re.compile(r"\w[\w.+-]*")  # it names a folder


class AblationError(UserError):
  """What was asked for cannot be run."""


class PlannedRun(NamedTuple):
  """One row of the table with one seed."""

  row: str  # the variant, or the name of the settings
  seed: int
  config: Config
  workdir: Path
  arguments: tuple[str, ...]  # of `magnifier_jax.main`


class _Row(NamedTuple):
  """What the runs of a row share."""

  name: str
  config_file: str  # with variants after a colon
  overrides: list[str]  # '--config.field=value'


def plan(
  file: str,
  variants: Sequence[str],
  seeds: Sequence[int],
  output: Path,
  settings: Sequence[str],
  rows: Sequence[str] = (),
) -> list[PlannedRun]:
  """Returns the runs in the order in which to run them: all rows of a seed, then the next.

  Args:
    file: the config file, perhaps with variants after a colon that all runs share.
    variants: of the file, a row each; several joined by + make one.
    seeds: each row is run with each of them.
    output: gets a folder for each run.
    settings: 'field=value', for all runs.
    rows: 'NAME=field=value …', rows of the file itself with fields of their own.

  Raises:
    AblationError: on a repeated row or seed, or a setting that is none.
    ConfigError: on a variant or a setting that the config does not have.
  """
  shared = [_override(setting, "--set") for setting in settings]
  planned = [_variant_row(file, variant, shared) for variant in variants]
  planned += [_settings_row(file, row, shared) for row in rows]
  names = [row.name for row in planned]
  for option, values in (("--settings" if rows else "--variants", names), ("--seeds", seeds)):
    repeated = next((value for value in values if values.count(value) > 1), None)
    if repeated is not None:
      raise AblationError(f"{option}: {repeated} is there more than once")
  return [_planned_run(row, seed, output) for seed in seeds for row in planned]


def _override(setting: str, option: str) -> str:
  field, equals, value = setting.removeprefix("config.").partition("=")
  if not (field and equals):
    raise AblationError(f"{option}: {setting!r} does not look like training.num_epochs=4")
  if field == "seed":
    raise AblationError(f"{option}: the seed is for --seeds to set")
  return f"--config.{field}={value}"


def _variant_row(file: str, variant: str, shared: Sequence[str]) -> _Row:
  config_file = f"{file}{',' if ':' in file else ':'}{variant.replace('+', ',')}"
  return _Row(variant, config_file, list(shared))


def _settings_row(file: str, row: str, shared: Sequence[str]) -> _Row:
  """Returns the row of 'NAME=field=value …', whose name ends the config's, which tables show."""
  name, equals, settings = row.partition("=")
  if not equals or not _ROW_NAME.fullmatch(name):
    raise AblationError(
      f"--settings: {row!r} does not look like cosine='optimizer.schedule=cosine'"
    )
  try:
    changes = [_override(setting, f"--settings {name}") for setting in shlex.split(settings)]
  except ValueError as error:
    raise AblationError(f"--settings: {row!r}: {error}") from error
  label = f"--config.name={load_config(file, list(shared)).name}_{name}"
  return _Row(name, file, [*shared, label, *changes])


def _planned_run(row: _Row, seed: int, output: Path) -> PlannedRun:
  overrides = [*row.overrides, f"--config.seed={seed}"]
  workdir = output / row.name / f"seed{seed}"
  return PlannedRun(
    row.name,
    seed,
    load_config(row.config_file, overrides),
    workdir,
    (f"--config={row.config_file}", f"--workdir={workdir}", *overrides),
  )


class Ablation:
  """Runs what was planned, and says how far it is.

  Args:
    runs: in their order.
    output: gets the comparison, after every run.
    console: lines go there; on a terminal the last one follows the run.
  """

  def __init__(self, runs: Sequence[PlannedRun], output: Path, console: TextIO):
    self._runs = runs
    self._output = output
    self._console = console
    self._times = RunTimes()

  def run(self) -> list[PlannedRun]:
    """Runs all that has not finished before; returns those that failed."""
    failed = []
    for index, run in enumerate(self._runs):
      label = f"[{index + 1}/{len(self._runs)}] {run.row}, seed {run.seed}"
      result = finished_result(run)
      if result is not None:
        self._say(f"{label}: finished before, {_accuracy(result)}")
      elif not self._run_one(run, label, [later.row for later in self._runs[index + 1 :]]):
        failed.append(run)
      else:
        self.compare()
    return failed

  def compare(self) -> str | None:
    """Writes the comparison of what has finished; returns it as text, None where nothing has."""
    workdirs = [run.workdir for run in self._runs if finished_result(run) is not None]
    if not workdirs:
      return None
    comparisons = compare(workdirs)
    suffixes = list(SUFFIXES)
    if len(comparisons) > 1:
      suffixes.remove(".svg")  # it shows one test set; the one that is there is of fewer runs
      (self._output / "comparison.svg").unlink(missing_ok=True)
    for suffix in suffixes:
      write_comparison(comparisons, self._output / f"comparison{suffix}")
    return f"{as_text(comparisons)}\nwritten: {self._output}/comparison{{{','.join(suffixes)}}}"

  def _run_one(self, run: PlannedRun, label: str, later: Sequence[str]) -> bool:
    clock, last_lines = RunClock(run.workdir, run.config.training.num_epochs), []
    looked = time.monotonic()
    log = run.workdir / "console.log"
    self._say(f"{label}: started, {log}")

    def on_line(line: str) -> None:
      nonlocal looked
      last_lines[:] = [*last_lines, line][-_SHOWN_LINES:]
      if time.monotonic() - looked >= _FOLLOW_SECONDS:
        looked = time.monotonic()
        clock.read()
        epochs = f"epoch {clock.epoch:.2f} of {run.config.training.num_epochs}"
        self._follow(f"{label}: {epochs}, {self._left(clock, later)}")

    busy = _seconds_of_children()
    exit_code = run_training(run.arguments, log, on_line)
    self._follow("")
    clock.read()
    result = finished_result(run)
    took = format_duration(clock.elapsed)
    if exit_code == 0 and result is not None:
      self._times.add(run.row, clock.whole() or clock.elapsed)
      left = format_duration(self._times.estimate(later))
      worked = format_duration(_seconds_of_children() - busy)
      self._say(
        f"{label}: {_accuracy(result)}, took {took}, of CPU time {worked}; about {left} left in all"
      )
      return True
    reason = f"exit code {exit_code}" if exit_code else "it left no results of its last step"
    self._say(f"{label}: FAILED after {took}, {reason}; {log} ends with")
    self._say("\n".join(f"    {line}" for line in last_lines))
    return False

  def _left(self, clock: RunClock, later: Sequence[str]) -> str:
    own, others = clock.left(), self._times.estimate(later, clock.whole())
    in_all = None if own is None or others is None else own + others
    return f"{format_duration(own)} left, about {format_duration(in_all)} in all"

  def _say(self, lines: str) -> None:
    print(lines, file=self._console, flush=True)

  def _follow(self, line: str) -> None:
    """Replaces a terminal's last line; elsewhere it would be one more."""
    if self._console.isatty():
      print(f"\r\x1b[K{line}", end="", file=self._console, flush=True)


def finished_result(run: PlannedRun) -> RunResult | None:
  """Returns the results of a planned run; None unless it has come to its end as it was planned."""
  try:
    result = read_run(run.workdir)
  except UserError:
    return None
  wanted = run.config.to_dict()
  report = result.folder / "report.html"
  finished = (
    result.steps_per_epoch is not None
    and result.step == run.config.training.num_epochs * result.steps_per_epoch
    and not result.chosen_on
    and result.validation_people == run.config.data.validation_people
    and result_fields(result.config) == result_fields(wanted)
    # It is written after the numbers; an older one is of fewer epochs.
    and report.exists()
    and report.stat().st_mtime >= (result.folder / METRICS).stat().st_mtime
    and (result.occlusion is not None or run.config.evaluation.occlude == "none")
  )
  return result if finished else None


def _seconds_of_children() -> float:
  """Returns the CPU seconds of the processes that have ended, and of theirs."""
  times = os.times()
  return times.children_user + times.children_system


def _accuracy(result: RunResult) -> str:
  whole = result.rows["all"]
  return f"rank-1 {100 * whole['rank1']:.1f} %, mAP {100 * whole['mAP']:.1f} %"
