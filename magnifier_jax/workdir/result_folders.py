"""Where the results of a run lie: its own in the workdir, those on other data in folders of it."""

from collections.abc import Sequence
from pathlib import Path

METRICS = "metrics.json"
OTHER_DATA = "tested_on"


def results_folder(workdir: Path, trained_on: str | Sequence[str], tested_on: str) -> Path:
  """Returns the folder of the results on one data set.

  Args:
    workdir: of the run.
    trained_on: the data set that the run was trained on, or all of them.
    tested_on: the data set that it is measured on.

  Returns:
    The workdir itself if that data set alone was trained on, else `tested_on/NAME` in it. So the
    results of one data set never take the place of another's.
  """
  if tested_on == trained_on:
    return workdir
  return workdir / OTHER_DATA / tested_on.replace("/", "_")


def folders_with_results(workdir: Path) -> list[Path]:
  """Returns the folders of a run that hold results: its own first, then other data by name."""
  folders = [workdir, *sorted((workdir / OTHER_DATA).glob("*"))]
  return [folder for folder in folders if (folder / METRICS).is_file()]
