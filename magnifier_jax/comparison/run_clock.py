"""How long training runs take: one from what it prints, several from those that have ended."""

import re
import time
from collections.abc import Callable, Sequence

_STEP = re.compile(r"step (\d+)/(\d+) ")
_RESUMED = re.compile(r"resuming from step (\d+) ")


class RunClock:
  """How far a run is, from the lines that it prints.

  Args:
    now: the clock, in seconds.
  """

  def __init__(self, now: Callable[[], float] = time.monotonic):
    self._now = now
    self._start = now()
    self._first_step = self._step = self._num_steps = 0

  def read(self, line: str) -> bool:
    """Takes in a line of the console; returns whether it says how far the run is."""
    if match := _RESUMED.match(line):
      self._first_step = self._step = int(match[1])
    elif match := _STEP.match(line):
      self._step, self._num_steps = int(match[1]), int(match[2])
      return True
    return False

  @property
  def elapsed(self) -> float:
    """Seconds since the run started, or went on."""
    return self._now() - self._start

  def whole(self) -> float | None:
    """Returns the seconds that the whole run takes at its pace; None before a step is known."""
    done = self._step - self._first_step
    return self.elapsed * self._num_steps / done if done > 0 else None

  def left(self) -> float | None:
    """Returns the seconds until its last step; None before a step is known."""
    whole = self.whole()
    return None if whole is None else whole * (1 - self._step / self._num_steps)


class RunTimes:
  """What runs of each variant take, for an estimate of those that are to come."""

  def __init__(self):
    self._seconds: dict[str, list[float]] = {}

  def add(self, variant: str, seconds: float) -> None:
    """Notes how long a whole run of a variant took."""
    self._seconds.setdefault(variant, []).append(seconds)

  def estimate(self, variants: Sequence[str], otherwise: float | None = None) -> float | None:
    """Returns the seconds that a run of each of `variants` will take, one after the other.

    Args:
      variants: of the runs to come. One that has not been run yet counts as the mean of the others.
      otherwise: seconds of a run, while none has ended.

    Returns:
      None when nothing is known.
    """
    means = {variant: sum(times) / len(times) for variant, times in self._seconds.items()}
    default = sum(means.values()) / len(means) if means else otherwise
    if not variants:
      return 0.0
    if default is None:
      return None
    return sum(means.get(variant, default) for variant in variants)


def format_duration(seconds: float | None) -> str:
  """Returns 'h:mm:ss'; '?' for what is not known."""
  if seconds is None:
    return "?"
  whole = round(seconds)
  return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
