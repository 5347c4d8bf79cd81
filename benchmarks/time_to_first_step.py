"""Time from the start of `python -m magnifier_jax.main` to the end of the first update.

Each run is a process of its own on the built-in data set, which is prepared beforehand: first with
an empty compilation cache, then with what that run has left there.

  python -m benchmarks.time_to_first_step --size=small
  python -m benchmarks.time_to_first_step --size=full --identities_per_batch=2 --json=times.json
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_SIZES = {"small": "configs/cuhk03.py:small", "full": "configs/cuhk03.py"}
_MARK = "MARK "
_TRACE = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration")
_COMPILE = ("backend_compile_duration",)


class Times(NamedTuple):
  """Seconds of one start; the parts add up to the total."""

  imports: float  # from the start of the process to the call of `train`
  data: float  # opening the prepared data set
  trace: float  # to jaxprs, and from those to what XLA takes
  compile: float  # by XLA, or reading the cache
  rest: float  # first batch, first update, and what lies between
  total: float
  cpu: float  # user + system, all threads


def main() -> None:
  """Measures, prints a table, and writes JSON if asked to."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--size", choices=_SIZES, default="small")
  parser.add_argument("--identities_per_batch", type=int, default=None, help="P, to save memory")
  parser.add_argument("--repeats", type=int, default=1, help="cold and warm starts")
  parser.add_argument("--json", type=Path, default=None)
  options = parser.parse_args()
  arguments = _arguments(options.size, options.identities_per_batch)
  _prepare(arguments)
  rows = []
  for repeat in range(options.repeats):
    with tempfile.TemporaryDirectory() as folder:
      for cache in ("cold", "warm"):
        times = _start(arguments, Path(folder), cache)
        rows.append({"size": options.size, "cache": cache, "repeat": repeat, **times._asdict()})
        print(_line(rows[-1]), flush=True)
  if options.json is not None:
    options.json.write_text(json.dumps(rows, indent=2) + "\n")


def _line(row: dict[str, str | float]) -> str:
  cells = (f"{name} {row[name]:.1f}" for name in Times._fields)
  return f"{row['size']:<6}{row['cache']:<6}" + "  ".join(cells)


def _arguments(size: str, identities_per_batch: int | None) -> list[str]:
  """Returns the flags of a run of one update on drawn pedestrians."""
  arguments = [
    f"--config={_SIZES[size]}",
    "--config.data.dataset=synthetic_reid/small",
    "--config.init.backbone=none",
    "--config.training.num_epochs=1",
    "--config.training.steps_per_epoch=1",
    "--config.evaluation.initial=False",
  ]
  if identities_per_batch is not None:
    arguments.append(f"--config.data.identities_per_batch={identities_per_batch}")
  return arguments


def _prepare(arguments: list[str]) -> None:
  """Draws the data set where it is not there yet; a process of its own keeps this one small."""
  program = "from benchmarks.time_to_first_step import prepare_data; prepare_data()"
  subprocess.run([sys.executable, "-c", program, *arguments], check=True)


def prepare_data() -> None:
  """Prepares the built-in data set."""
  from configs.cuhk03 import get_config
  from magnifier_jax.config import Config
  from magnifier_jax.data import dataset

  config = get_config()
  config.data.dataset = "synthetic_reid/small"
  dataset.prepare(Config.from_config_dict(config).data)


def _start(arguments: list[str], folder: Path, cache: str) -> Times:
  """Starts a run and stops it at its first update."""
  program = "from benchmarks.time_to_first_step import run_main; run_main()"
  flags = [f"--workdir={folder / cache}", f"--compilation_cache={folder / 'xla'}"]
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  start = time.monotonic()
  process = subprocess.Popen(
    [sys.executable, "-c", program, *arguments, *flags], stdout=subprocess.PIPE, text=True
  )
  marks = []
  for line in process.stdout:
    if line.startswith(_MARK):
      marks.append(json.loads(line.removeprefix(_MARK)))
    if line.startswith("step 1/"):
      break
  end = time.monotonic()
  process.kill()
  process.communicate()
  if not line.startswith("step 1/"):
    sys.exit("the run ended before its first update; its message is above")
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  return _split(marks, start, end, cpu)


def _split(marks: list[tuple[str, float, float]], start: float, end: float, cpu: float) -> Times:
  """Divides the time from `start` to `end` by intervals (name, from, to), which may overlap."""
  imports = next(to for name, _, to in marks if name == "imports") - start
  data = _covered(mark[1:] for mark in marks if mark[0] == "data")
  compiling = _covered(mark[1:] for mark in marks if mark[0] in _COMPILE)
  both = _covered(mark[1:] for mark in marks if mark[0] in _TRACE + _COMPILE)
  total = end - start
  rest = total - imports - data - both
  return Times(imports, data, both - compiling, compiling, rest, total, cpu)


def _covered(intervals: Iterable[tuple[float, float]]) -> float:
  """Returns the length of the union of intervals."""
  covered, reached = 0.0, float("-inf")
  for begin, end in sorted(intervals):
    covered += max(0.0, end - max(begin, reached))
    reached = max(reached, end)
  return covered


def run_main() -> None:
  """Runs `main` in this process and prints when what was done; `_start` reads it."""
  import magnifier_jax.main as main_module

  main_module.restart_with_huge_pages()  # not later: what comes next takes time
  os.environ.setdefault("PYTHONUNBUFFERED", "1")
  import jax

  from magnifier_jax import train as train_module
  from magnifier_jax.data import dataset

  def mark(name: str, seconds: float, **_: str | int) -> None:
    now = time.monotonic()
    short = name.rpartition("/")[2]
    if short in (*_TRACE, *_COMPILE, "imports", "data"):
      print(_MARK + json.dumps([short, now - seconds, now]), flush=True)

  jax.monitoring.register_event_duration_secs_listener(mark)
  train, load = train_module.train, dataset.load

  def timed_train(*arguments) -> None:
    mark("imports", 0.0)
    train(*arguments)

  def timed_load(*arguments):
    start = time.monotonic()
    loaded = load(*arguments)
    mark("data", time.monotonic() - start)
    return loaded

  train_module.train, dataset.load = timed_train, timed_load
  main_module.cli()


if __name__ == "__main__":
  main()
