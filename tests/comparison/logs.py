"""Logs of runs that are on their way."""

import json
from pathlib import Path


def write_log(workdir: Path, *epochs: float) -> None:
  """Writes `metrics.jsonl` as it is after such epochs of ten updates."""
  records = [{"step": 0, "eval/mAP": 0.1}, *({"step": 10 * e, "epoch": e} for e in epochs)]
  lines = "".join(f"{json.dumps(record)}\n" for record in records)
  # A kill, or a look at the wrong moment, finds half a line.
  (workdir / "metrics.jsonl").write_text(f'{lines}{{"step": 9')
