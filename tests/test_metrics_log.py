"""The file of metrics after a kill, and after damage."""

from pathlib import Path

import pytest

from magnifier_jax.metrics_log import MetricsFileError, MetricsLog, read_records


def write_steps(workdir: Path, start_step: int, steps: range) -> None:
  log = MetricsLog(workdir, start_step)
  for step in steps:
    log.write(step, {"loss/total": step / 2})
  log.close()


def test_records_after_the_step_resumed_from_are_dropped(tmp_path: Path):
  write_steps(tmp_path, 0, range(1, 5))
  write_steps(tmp_path, 2, range(3, 4))
  assert read_records(tmp_path) == [{"step": step, "loss/total": step / 2} for step in (1, 2, 3)]


def test_half_written_last_line_is_dropped(tmp_path: Path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
  assert read_records(tmp_path) == [{"step": 1}]


def test_damage_before_the_last_line_is_named(tmp_path: Path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
  with pytest.raises(MetricsFileError, match=r"metrics.jsonl, line 2: not a JSON record"):
    read_records(tmp_path)
