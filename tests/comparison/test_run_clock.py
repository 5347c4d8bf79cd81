"""How long runs have taken, and how long they will."""

from pathlib import Path

import pytest

from magnifier_jax.comparison import run_clock
from magnifier_jax.comparison.run_clock import RunClock, RunTimes
from magnifier_jax.workdir.metrics_log import format_duration
from tests.comparison.logs import write_log


def test_clock_of_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  now = 100.0
  monkeypatch.setattr(run_clock.time, "monotonic", lambda: now)
  write_log(tmp_path, 5.0, 6.0, 7.0)
  clock = RunClock(tmp_path, num_epochs=10)
  assert (clock.epoch, clock.left()) == (7.0, None)
  write_log(tmp_path, 5.0, 6.0)  # the checkpoint is of epoch 6
  clock.read()
  assert clock.left() is None
  now = 110.0
  write_log(tmp_path, 5.0, 6.0, 7.5, 8.0)
  clock.read()
  assert clock.whole() == pytest.approx(50.0)  # 2 epochs of 10 in 10 s
  assert clock.left() == pytest.approx(10.0)


def test_clock_of_a_fresh_run_and_of_a_damaged_log(tmp_path: Path):
  clock = RunClock(tmp_path, num_epochs=10)
  assert (clock.epoch, clock.whole()) == (0.0, None)
  (tmp_path / "metrics.jsonl").write_text("damaged\n{}\n")
  clock.read()
  assert clock.left() is None


def test_time_of_later_runs():
  times = RunTimes()
  assert times.estimate(["all"]) is None
  assert times.estimate(["all", "baseline"], otherwise=7.0) == 14.0
  times.add("all", 30.0)
  times.add("all", 50.0)
  times.add("baseline", 10.0)
  assert times.estimate(["all", "baseline", "fusion"], otherwise=7.0) == 40.0 + 10.0 + 25.0
  assert times.estimate([]) == 0.0


@pytest.mark.parametrize(("seconds", "text"), [(None, "?"), (59.6, "0:01:00"), (37230, "10:20:30")])
def test_durations(seconds: float | None, text: str):
  assert format_duration(seconds) == text
