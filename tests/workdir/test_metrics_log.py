"""The file of metrics after a kill, and after damage."""

from pathlib import Path

import pytest

from magnifier_jax.workdir.metrics_log import MetricsFileError, MetricsLog, read_records


def write_steps(workdir: Path, start_step: int, steps: range, evaluated: bool = False) -> None:
  log = MetricsLog(workdir, start_step, evaluated)
  for step in steps:
    log.write(step, {"loss/total": step / 2})
  log.close()


def test_records_after_the_step_resumed_from_are_dropped(tmp_path: Path):
  write_steps(tmp_path, 0, range(1, 5))
  write_steps(tmp_path, 2, range(3, 4))
  assert read_records(tmp_path) == [{"step": step, "loss/total": step / 2} for step in (1, 2, 3)]


@pytest.mark.parametrize("evaluated", [True, False])
def test_an_evaluation_that_will_be_repeated_is_dropped(tmp_path: Path, evaluated: bool):
  log = MetricsLog(tmp_path, 0, evaluated=False)
  records = [{"step": 1, "loss/total": 1.0}, {"step": 1, "eval/mAP": 0.5}]
  for record in records:
    log.write(1, {name: value for name, value in record.items() if name != "step"})
  log.close()
  write_steps(tmp_path, 1, range(0), evaluated)
  assert read_records(tmp_path) == records[: 1 + evaluated]


def test_half_written_last_line_is_dropped(tmp_path: Path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
  assert read_records(tmp_path) == [{"step": 1}]


def test_damage_before_the_last_line_is_named(tmp_path: Path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
  with pytest.raises(MetricsFileError, match=r"metrics.jsonl, line 2: not a JSON record"):
    read_records(tmp_path)
