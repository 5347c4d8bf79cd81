"""Where a run's numbers go: the console, TensorBoard and `metrics.jsonl`."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from magnifier_jax.errors import UserError
from magnifier_jax.files.whole_file import write_text, writing


class MetricsFileError(UserError):
  """`metrics.jsonl` is damaged."""


class MetricsLog:
  """Writes scalars by step; only on process 0.

  Args:
    workdir: gets `metrics.jsonl` and `tensorboard/`.
    start_step: records of later steps, which a run that was killed left behind, are dropped.
    evaluated: whether the evaluation at `start_step` is done; if not, it will be written again.
  """

  def __init__(self, workdir: Path, start_step: int, evaluated: bool):
    self._active = jax.process_index() == 0
    if not self._active:
      return
    from clu import metric_writers  # imports TensorFlow, which `say` must not need

    self._path = workdir / "metrics.jsonl"
    _drop_records_after(self._path, start_step, evaluated)
    with writing(self._path):
      self._file = self._path.open("a")
    self._tensorboard = metric_writers.SummaryWriter(str(workdir / "tensorboard"))

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one record; `step` counts updates done."""
    if not self._active:
      return
    values = {name: float(value) for name, value in scalars.items()}
    self._file.write(json.dumps({"step": step, **values}) + "\n")
    self._file.flush()
    self._tensorboard.write_scalars(step, values)

  def flush(self) -> None:
    """Brings everything to the disk, so that a machine may stop."""
    if self._active:
      os.fsync(self._file.fileno())
      self._tensorboard.flush()

  def close(self) -> None:
    """Brings everything to the disk, and ends."""
    if self._active:
      self.flush()
      self._file.close()
      self._tensorboard.close()


def read_records(workdir: Path) -> list[dict[str, float]]:
  """Returns the records of `metrics.jsonl`, in the order of writing; [] when there are none.

  A half-written last line, which a kill can leave, is dropped.

  Raises:
    MetricsFileError: when another line is damaged.
  """
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  records = []
  for number, line in enumerate(lines, start=1):
    try:
      records.append(json.loads(line))
    except json.JSONDecodeError as error:
      if number < len(lines):
        raise MetricsFileError(
          f"{path}, line {number}: not a JSON record; delete the line, or the file"
        ) from error
  return records


def _drop_records_after(path: Path, step: int, evaluated: bool) -> None:
  def stays(record: Mapping[str, float]) -> bool:
    is_evaluation = any(name.startswith("eval/") for name in record)
    return record["step"] < step or (record["step"] == step and (evaluated or not is_evaluation))

  records = [record for record in read_records(path.parent) if stays(record)]
  write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def flatten(terms: Mapping[str, np.ndarray | None], prefix: str) -> dict[str, float]:
  """Returns {prefix/name: value}, vectors as prefix/name/0, prefix/name/1, …, without Nones."""
  flat = {}
  for name, value in terms.items():
    if value is None:
      continue
    if np.ndim(value) == 0:
      flat[f"{prefix}/{name}"] = float(value)
    else:
      flat |= {f"{prefix}/{name}/{i}": float(v) for i, v in enumerate(value)}
  return flat


class Progress:
  """Rate and time left of work whose amount is known.

  Args:
    total: amount of work.
    done: amount done before the clock starts; kept as `first`.
  """

  def __init__(self, total: int, done: int = 0):
    self._total = total
    self._first = self._done = self.first = done
    self._start = time.monotonic()

  def restart(self) -> None:
    """Restarts the clock at the amount done, e.g. after compiling or evaluating."""
    self._first, self._start = self._done, time.monotonic()

  def update(self, done: int) -> None:
    """Sets the amount done."""
    self._done = done

  @property
  def rate(self) -> float:
    """Work a second since the clock started; 0 before anything is done."""
    elapsed = time.monotonic() - self._start
    return (self._done - self._first) / elapsed if elapsed > 0 else 0.0

  def left(self) -> str:
    """Returns the time left as 'h:mm:ss', or '?' before anything is done."""
    if self.rate == 0:
      return format_duration(None)
    return format_duration(math.ceil((self._total - self._done) / self.rate))


def format_duration(seconds: float | None) -> str:
  """Returns 'h:mm:ss'; '?' for what is not known."""
  if seconds is None:
    return "?"
  whole = round(seconds)
  return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def say(message: str) -> None:
  """Prints a line for the user, on process 0."""
  if jax.process_index() == 0:
    print(message, flush=True)
