"""What was measured of a checkpoint, on its own data and on others, as its workdir has it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnifier_jax.errors import UserError
from magnifier_jax.evaluation.thresholds import of_several, read_thresholds
from magnifier_jax.workdir.result_folders import folders_with_results


class MetricsError(UserError):
  """A workdir's `metrics.json` or `initial_weights.json` is damaged."""


def read_results(
  workdir: Path, step: int
) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
  """Returns the metrics of a checkpoint on the run's own data set, and {data set: on another}.

  Args:
    workdir: of a run. One that was trained on several data sets has none of its own.
    step: of the checkpoint; results of another one, or of unknown embeddings, are left out.

  Raises:
    MetricsError: when a file is damaged.
  """
  found = {
    folder: metrics
    for folder in folders_with_results(workdir)
    if (metrics := read_object(folder / "metrics.json")) and metrics.get("step") == step
  }
  own = found.pop(workdir, None)
  return own, {str(metrics.get("dataset")): metrics for metrics in found.values()}


def calibrated_thresholds(workdir: Path, step: int) -> Mapping[str, Any] | None:
  """Returns what was calibrated on any data; by default that of the run's own counts.

  Args:
    workdir: of a run. One that was trained on several data sets has results of each in a folder.
    step: of the checkpoint.

  Raises:
    ThresholdError: when the results of an evaluation are damaged.
  """
  found = {folder: read_thresholds(folder, step) for folder in folders_with_results(workdir)}
  own = found.get(workdir)
  return of_several(dict(filter(None, found.values())), own and own[0])


def read_object(file: Path) -> dict[str, Any] | None:
  """Returns a JSON file of a workdir; None when it is not there.

  Raises:
    MetricsError: when it is damaged.
  """
  try:
    content = json.loads(file.read_text())
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise MetricsError(f"{file}: damaged ({error}); evaluate again, or delete it") from error
  if not isinstance(content, dict):
    raise MetricsError(f"{file}: damaged (no object in it); evaluate again, or delete it")
  return content
