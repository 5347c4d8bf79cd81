"""The image's steps, carried out without Docker: what is installed, what is copied, what runs."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill_and_resume import SMALL_NETWORK, write_images

pytestmark = pytest.mark.slow

ACCELERATORS = {"cuda12": "jax-cuda12-plugin", "tpu": "libtpu"}


@pytest.fixture(scope="module")
def steps(repository: Path) -> list[tuple[str, str]]:
  """(instruction, its arguments) of the Dockerfile, in their order."""
  lines = (repository / "launch" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
  written = [line for line in lines if line.strip() and not line.startswith("#")]
  return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in written)]


def arguments_of(steps: list[tuple[str, str]], instruction: str) -> list[str]:
  found = [rest for name, rest in steps if name == instruction]
  assert found, instruction
  return found


@pytest.fixture(scope="module")
def image(
  steps: list[tuple[str, str]], repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
  """The image's folder: what the Dockerfile copies, and nothing else of the checkout."""
  folder = tmp_path_factory.mktemp("app")
  for arguments in arguments_of(steps, "COPY"):
    source, destination = arguments.split()
    if (repository / source).is_dir():
      shutil.copytree(repository / source, folder / destination)
    else:
      shutil.copy(repository / source, folder / destination)
  return folder


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_what_it_installs_fits_together(
  accelerator: str, steps: list[tuple[str, str]], image: Path, tmp_path: Path
):
  (command,) = arguments_of(steps, "RUN")
  program, *options = shlex.split(command.replace("${ACCELERATOR}", accelerator))
  assert program == "pip"
  report = tmp_path / "report.json"
  # Into an empty place, as the image's Python has nothing yet.
  where = ("--dry-run", "--ignore-installed", "--quiet", f"--report={report}")
  result = subprocess.run(
    [sys.executable, "-m", "pip", *options, *where], cwd=image, capture_output=True, text=True
  )
  if "No matching distribution" in result.stderr and "Retrying" in result.stderr:
    pytest.skip("the package index cannot be reached")
  assert result.returncode == 0, result.stderr
  chosen = {
    entry["metadata"]["name"].lower(): entry["metadata"]["version"]
    for entry in json.loads(report.read_text())["install"]
  }
  pins = (line.split() for line in (image / "requirements.txt").read_text().splitlines())
  assert f"jax=={chosen['jax']}" in {pin[0] for pin in pins if pin}
  assert ACCELERATORS[accelerator] in chosen


def test_what_it_copies_is_enough_to_train(
  steps: list[tuple[str, str]], image: Path, tmp_path: Path
):
  # A list, so that SIGTERM reaches Python and no shell.
  (entry_point,) = arguments_of(steps, "ENTRYPOINT")
  program, *options = json.loads(entry_point)
  assert program == "python"
  write_images(tmp_path / "images" / "my_images")
  result = subprocess.run(
    [
      sys.executable,
      *options,
      "--config=configs/custom.py:small",
      f"--workdir={tmp_path}/workdir",
      *SMALL_NETWORK,
      "--config.model.backbone=resnet10_narrow",
      f"--config.data.manual_dir={tmp_path}/images",
      f"--config.data.data_dir={tmp_path}/data",
      "--config.training.num_epochs=1",
      "--config.training.steps_per_epoch=1",
      "--config.evaluation.initial=False",
    ],
    cwd=image,
    env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert (tmp_path / "workdir" / "metrics.json").exists()
