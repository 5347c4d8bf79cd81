"""What the benchmarks print and store: one table, its JSON, the machine, and peak memory."""

import json
import os
import platform
import resource
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple


class Column(NamedTuple):
  """A column of a table: text to the left, numbers to the right."""

  title: str
  width: int
  format: str = ""  # of numbers, e.g. '.2f'; '' is text

  def cell(self, value: Any) -> str:
    """Returns a value in the column's width; None is a dash."""
    if not self.format:
      return f"{'-' if value is None else value:<{self.width}}"
    return f"{'-' if value is None else format(value, self.format):>{self.width}}"


def header(columns: Sequence[Column]) -> str:
  """Returns the first line of a table."""
  return " ".join(f"{c.title:{'>' if c.format else '<'}{c.width}}" for c in columns).rstrip()


def line(columns: Sequence[Column], values: Sequence[Any]) -> str:
  """Returns a line of a table."""
  return " ".join(column.cell(value) for column, value in zip(columns, values)).rstrip()


def write_json(path: Path, content: Any) -> None:
  """Writes what a benchmark measured."""
  path.write_text(json.dumps(content, indent=2) + "\n")


def peak_megabytes() -> float:
  """Returns the most memory that this process has had, in MB of 2²⁰ bytes."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def forget_peak() -> bool:
  """Starts the peak of this process anew from what it has now; False where that is impossible."""
  try:
    Path("/proc/self/clear_refs").write_text("5")  # Linux's number for the peak alone
  except OSError:
    return False
  return True


def num_cores() -> int:
  """Returns the cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def machine(*packages: str) -> dict[str, str | int]:
  """Returns the processor, its cores, what glibc is told, and the versions of packages."""
  versions = {package: metadata.version(package) for package in packages}
  return {
    "processor": _processor(),
    "cores": num_cores(),
    "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "none"),
    "python": platform.python_version(),
    **versions,
  }


def _processor() -> str:
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  models = [text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")]
  return models[0] if models else platform.machine()
