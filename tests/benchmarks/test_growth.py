"""What the growth benchmark measures, prints and refuses; its sides cost nothing here."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.command_line import run
from benchmarks.side import Work
from benchmarks.worker import Worker


def fake_worker(work: Work, devices: int, cores: int | None) -> Worker:
  return Worker("JAX", "tests.benchmarks.fake_sides:FakeSide", 0.01 * work.batch_size)


def test_each_group_grows_by_itself(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
):
  monkeypatch.setattr(growth, "jax_worker", fake_worker)
  monkeypatch.setattr(growth, "num_cores", lambda: 2)
  path = tmp_path / "rows.json"
  arguments = ["--batch=8,16", "--sizes", "32,32", "64,32", "--rounds=1", f"--json={path}"]
  monkeypatch.setattr(sys, "argv", ["growth", *arguments])
  run(growth.main)
  rows = json.loads(path.read_text())["rows"]
  assert [(row["grows"], row["batch"], row["size"], row["devices"]) for row in rows] == [
    ("batch", 8, "64×32", 1),
    ("batch", 16, "64×32", 1),
    ("size", 8, "32×32", 1),
    ("size", 8, "64×32", 1),
    ("devices", 8, "64×32", 1),
    ("devices", 16, "64×32", 2),
  ]
  assert rows[1]["ms"] == pytest.approx(160)
  assert rows[1]["img/s"] == pytest.approx(100)
  assert rows[1]["ns/pixel"] == pytest.approx(160e6 / (16 * 64 * 32))
  assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)


def test_more_devices_than_cores_are_refused(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
  monkeypatch.setattr(growth, "num_cores", lambda: 2)
  monkeypatch.setattr(sys, "argv", ["growth", "--devices=1,4"])
  with pytest.raises(SystemExit, match="2"):
    run(growth.main)
  expected = "error: --devices: this CPU has 2 cores, and a device takes one\n"
  assert capsys.readouterr().err == expected
