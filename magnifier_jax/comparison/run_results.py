"""What a run left of its results: read from its workdir."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from magnifier_jax.errors import UserError
from magnifier_jax.evaluation.occlusion_results import OCCLUSION, OcclusionResults
from magnifier_jax.evaluation.protocol import CROSS_CAMERA
from magnifier_jax.evaluation.thresholds import THRESHOLDS
from magnifier_jax.report.published import PublishedTable, published_table
from magnifier_jax.workdir.checkpoints import Checkpoints
from magnifier_jax.workdir.metrics_log import read_records
from magnifier_jax.workdir.old_records import with_todays_fields
from magnifier_jax.workdir.origin import ORIGIN
from magnifier_jax.workdir.result_folders import METRICS, folders_with_results, results_folder

WHOLE = "all"  # the row of the whole embedding

# What `metrics.json` holds beside the rows of results.
_NO_ROWS = (OCCLUSION, THRESHOLDS)

# What is read of a stored config by name. Other fields may be missing in one of an earlier version.
_NEEDED = frozenset({"name", "seed", "model", "data", "loss", "training", "evaluation"})


class CompareError(UserError):
  """A workdir has no results, damaged ones, or ones that cannot stand beside the others."""


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
