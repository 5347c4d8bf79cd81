"""Whose folder a workdir is: files of somebody else's are never written over."""

import json
from pathlib import Path

from magnifier_jax.errors import UserError
from magnifier_jax.workdir.origin import ORIGIN

LOCK_FILE = "run.lock"
_MARKS = (LOCK_FILE, "checkpoints")  # a folder with one of them is a run's
_WRITTEN = (
  "config.json",
  "metrics.json",
  "metrics.jsonl",
  "ranking.csv",
  "report.html",
  "tensorboard",
  ORIGIN,
)


class ForeignFilesError(UserError):
  """A folder holds files of something else, under the names that a run writes."""


def check_no_foreign_files(workdir: Path) -> None:
  """Refuses a folder whose files a run would write over, but which no run has written.

  Raises:
    ForeignFilesError: names them.
  """
  if any((workdir / mark).exists() for mark in _MARKS) or _is_a_result(workdir / "metrics.json"):
    return
  foreign = [name for name in _WRITTEN if (workdir / name).exists()]
  if foreign:
    raise ForeignFilesError(
      f"{workdir}: has {', '.join(foreign)}, and no run has written there; a run would write over "
      "them. Use another --workdir, or move them away"
    )


def _is_a_result(path: Path) -> bool:
  """Says whether a file is what an evaluation of saved embeddings leaves, without a run."""
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return False
  return isinstance(content, dict) and {"config", "dataset", "all"} <= content.keys()
