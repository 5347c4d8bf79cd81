"""How long training runs take: one from what it logs, several from those that have ended."""

import time
from collections.abc import Sequence
from pathlib import Path

from magnifier_jax.workdir.metrics_log import MetricsFileError, read_records


class RunClock:
  """How far a run is, from the `metrics.jsonl` that it writes.

  Args:
    workdir: of the run; what an earlier part of it has logged is not of this clock.
    num_epochs: of the whole run.
  """

  def __init__(self, workdir: Path, num_epochs: int):
    self._workdir = workdir
    self._num_epochs = num_epochs
    self._start = time.monotonic()
    self._first = self.epoch = self._logged()

  def read(self) -> None:
    """Looks at how far the run is."""
    self.epoch = self._logged()
    # A run that goes on from a checkpoint first drops what was logged after it.
    self._first = min(self._first, self.epoch)

  @property
  def elapsed(self) -> float:
    """Seconds since the run started, or went on."""
    return time.monotonic() - self._start

  def whole(self) -> float | None:
    """Returns the seconds that the whole run takes at its pace; None before a step is known."""
    done = self.epoch - self._first
    return self.elapsed * self._num_epochs / done if done > 0 else None

  def left(self) -> float | None:
    """Returns the seconds until its last step; None before a step is known."""
    whole = self.whole()
    return None if whole is None else whole * (1 - self.epoch / self._num_epochs)

  def _logged(self) -> float:
    """Returns the last epoch in the log, with its fraction; 0 where there is none."""
    try:
      records = read_records(self._workdir)
    except MetricsFileError:  # the run itself says so, and ends
      records = []
    return next((record["epoch"] for record in reversed(records) if "epoch" in record), 0.0)


class RunTimes:
  """What runs of each row take, for an estimate of those that are to come."""

  def __init__(self):
    self._seconds: dict[str, list[float]] = {}

  def add(self, row: str, seconds: float) -> None:
    """Notes how long a whole run of a row took."""
    self._seconds.setdefault(row, []).append(seconds)

  def estimate(self, rows: Sequence[str], otherwise: float | None = None) -> float | None:
    """Returns the seconds that a run of each of `rows` will take, one after the other.

    Args:
      rows: of the runs to come. One that has not been run yet counts as the mean of the others.
      otherwise: seconds of a run, while none has ended.

    Returns:
      None when nothing is known.
    """
    means = {row: sum(times) / len(times) for row, times in self._seconds.items()}
    default = sum(means.values()) / len(means) if means else otherwise
    if not rows:
      return 0.0
    if default is None:
      return None
    return sum(means.get(row, default) for row in rows)
