"""Sides that cost nothing, for the processes of `test_worker` and `test_comparison`."""

import os
import sys
import time

from benchmarks.side import Lap, Peaks
from magnifier_jax.errors import UserError


class FakeSide:
  """Spends a stated time on a step, and fails when it is asked to."""

  def __init__(self, seconds: float):
    self._seconds = seconds

  def warm_up(self) -> Lap:
    return self.lap(1)

  def lap(self, steps: int) -> Lap:
    cpu_start = time.process_time()
    while time.process_time() - cpu_start < steps * self._seconds:
      pass
    return Lap(self._seconds, (time.process_time() - cpu_start) / steps)

  def cpu_seconds(self) -> float:
    return time.process_time()

  def peaks(self) -> Peaks:
    return Peaks(None, 1.0)

  def matrix_product_rate(self) -> float:
    return 1e9

  def environment(self, name: str) -> str:
    return os.environ[name]

  def modules(self) -> list[str]:
    return list(sys.modules)

  def refuse(self) -> None:
    raise UserError("mend this")

  def leave(self) -> None:
    os._exit(3)
