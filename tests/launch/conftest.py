"""Stand-ins for the programs of a cluster, which note how they were called."""

import os
import subprocess
from pathlib import Path

import pytest

END_OF_ARGUMENT, END_OF_CALL = "\x1f", "\x1e"


class FakePrograms:
  """Programs on the PATH that note each call, and then do what a test gives them to do.

  Args:
    folder: for the programs and whatever they leave; they see it as `$STATE`.
  """

  def __init__(self, folder: Path):
    self.folder = folder
    self._calls = folder / "calls"
    self._programs = folder / "programs"
    self._programs.mkdir()

  def add(self, name: str, body: str = "") -> None:
    """Adds a program whose work is `body`, in Bash."""
    path = self._programs / name
    path.write_text(
      "#!/usr/bin/env bash\n"
      f"{{ printf '%s\\x1f' {name} \"$@\"; printf '\\x1e'; }} >>'{self._calls}'\n{body}\n"
    )
    path.chmod(0o755)

  def environment(self, **variables: str) -> dict[str, str]:
    """Returns the test's environment with these programs and variables, without a cluster's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    path = f"{self._programs}:{kept['PATH']}"
    return kept | {"PATH": path, "STATE": str(self.folder), "POLL_SECONDS": "0"} | variables

  def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess:
    """Runs a command that finds these programs first; never for more than a minute."""
    return subprocess.run(
      command,
      env=self.environment(**variables),
      capture_output=True,
      text=True,
      timeout=60,
    )

  @property
  def calls(self) -> list[list[str]]:
    """The calls so far: name of the program and its arguments."""
    if not self._calls.exists():
      return []
    calls = self._calls.read_text().split(END_OF_CALL)[:-1]
    return [call.split(END_OF_ARGUMENT)[:-1] for call in calls]


@pytest.fixture
def programs(tmp_path: Path) -> FakePrograms:
  """An empty folder of stand-ins."""
  return FakePrograms(tmp_path)


@pytest.fixture
def launch(repository: Path) -> Path:
  """The folder of launch scripts."""
  return repository / "launch"
