"""Workdirs of runs as an evaluation leaves them, without training anything."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs.cuhk03 import get_config

STEPS_PER_EPOCH = 10


def small(variant: str = "all", **changes: Any) -> ConfigDict:
  """Returns `configs/cuhk03.py:small` with a variant and dotted fields changed, dots as `__`."""
  config = get_config(f"small,{variant}")
  for name, value in changes.items():
    config.update_from_flattened_dict({name.replace("__", "."): value})
  return config


def accuracies(rank1: float, mean_ap: float) -> dict[str, float]:
  """Returns a row of results, as fractions."""
  return {"rank1": rank1, "mAP": mean_ap, "mINP": mean_ap / 2, "num_queries": 832}


def write_run(
  workdir: Path,
  config: ConfigDict,
  rows: Mapping[str, Mapping[str, float]],
  untrained: float | None = None,
) -> Path:
  """Writes what a finished run leaves: its record, its results, its log and its report."""
  workdir.mkdir(parents=True, exist_ok=True)
  record = {"config": config.to_dict(), "num_people": 767, "steps_per_epoch": STEPS_PER_EPOCH}
  (workdir / "config.json").write_text(json.dumps(record))
  step = config.training.num_epochs * STEPS_PER_EPOCH
  results = {"config": config.name, "step": step, "flip": config.evaluation.flip, **rows}
  (workdir / "metrics.json").write_text(json.dumps(results))
  if untrained is not None:
    log = [
      {"step": 0, "eval/mAP": untrained, "eval/rank1": untrained},
      {"step": 5, "loss/total": 1},
    ]
    (workdir / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in log))
  (workdir / "report.html").write_text("")
  return workdir


def make_report_older(workdir: Path) -> None:
  """As an interruption between the numbers and the report leaves it."""
  os.utime(workdir / "report.html", (0, 0))
