"""What a run was trained on, in numbers: a file beside its checkpoints, for its reports."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax

from magnifier_jax.files.whole_file import write_json

TRAINING_DATA = "training_data.json"


def write_training_data(workdir: Path, lines: Sequence[str]) -> None:
  """Writes down how much was trained on, a line a data set."""
  if jax.process_index() == 0:
    write_json(workdir / TRAINING_DATA, {"trained_on": list(lines)})


def read_training_data(workdir: Path) -> list[str]:
  """Returns those lines; [] where an earlier version, or a conversion, wrote none."""
  try:
    content = json.loads((workdir / TRAINING_DATA).read_text(encoding="utf-8"))
    return [str(line) for line in content["trained_on"]]
  except (OSError, ValueError, KeyError, TypeError):  # no reason to go without a report
    return []
