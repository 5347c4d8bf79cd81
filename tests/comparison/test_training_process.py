"""A training in a process of its own: what it prints, and how it is ended."""

from pathlib import Path

import pytest

from magnifier_jax.comparison import training_process


def _program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
  """Puts a shell script in the place of Python."""
  script = tmp_path / "program"
  script.write_text("\n".join(["#!/bin/sh", *lines, ""]))
  script.chmod(0o755)
  monkeypatch.setattr(training_process.sys, "executable", str(script))


def test_process_prints_to_the_log_and_to_the_callback(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  _program(tmp_path, monkeypatch, 'echo "$3"', "echo wrong >&2", "exit 3")
  log, lines = tmp_path / "run" / "console.log", []
  for _ in range(2):
    assert training_process.run_training(["--workdir=x"], log, lines.append) == 3
  assert lines == ["--workdir=x", "wrong"] * 2
  once = f"$ {tmp_path}/program -m magnifier_jax.main --workdir=x\n--workdir=x\nwrong\n"
  assert log.read_text() == once * 2


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_interruption_ends_the_process(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool
):
  trap = "trap '' TERM" if stubborn else "trap 'echo saved; exit 143' TERM"
  _program(tmp_path, monkeypatch, trap, "echo $$", "while :; do sleep 0.05; done")
  monkeypatch.setattr(training_process, "_SECONDS_TO_STOP", 0.5)
  lines = []

  def interrupt(line: str) -> None:
    lines.append(line)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    training_process.run_training([], tmp_path / "log", interrupt)
  assert not Path(f"/proc/{lines[0]}").exists()
  assert ("saved" in (tmp_path / "log").read_text()) != stubborn
