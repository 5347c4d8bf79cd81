"""The command line: every mistake is one line that names the field, with exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest


def run_main(repository: Path, *arguments: str) -> subprocess.CompletedProcess:
  command = [sys.executable, "-m", "magnifier_jax.main", *arguments]
  return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    pytest.param([], "--config: missing", id="no config"),
    pytest.param(["--config=configs/nope.py"], "configs/nope.py", id="no such file"),
    pytest.param(["--config=configs/cuhk03.py:tiny"], "no variant 'tiny'; choose", id="variant"),
    pytest.param(
      ["--config=configs/cuhk03.py", "--workdir=gs://bucket/run"],
      "--workdir: gs://bucket/run is not a folder; mount it",
      id="bucket",
    ),
    pytest.param(
      ["--config=configs/cuhk03.py", "--workdir=None"],
      "--workdir: None is no folder; leave the flag out",
      id="no folder",
    ),
    pytest.param(
      ["--config=configs/cuhk03.py", "--config.optimizer.learning_rat=1"],
      "config.optimizer.learning_rat: no such field; did you mean learning_rate?",
      id="field",
    ),
    pytest.param(
      ["--config=configs/cuhk03.py", "--config.optimiser.learning_rate=1"],
      "config.optimiser: no such field; did you mean optimizer?",
      id="group",
    ),
    pytest.param(
      ["--config=configs/cuhk03.py", "--config.data.pixel_mean=.485,.456,.406"],
      "config.data.pixel_mean: (0.485, 0.456, 0.406) are of 0…1, but pixels are of 0…255; write "
      "(123.675, 116.28, 103.53)",
      id="pixel mean",
    ),
    pytest.param(
      ["--config=configs/cuhk03.py", "--config.data.augmentation.flip_probability=2"],
      "config.data.augmentation.flip_probability: must be from 0.0 to 1.0, got 2.0",
      id="range",
    ),
    pytest.param(
      [
        "--config=configs/cuhk03.py",
        "--config.data.manual_dir=/nowhere",
        "--config.data.data_dir=/nowhere",  # not a copy that was prepared before
      ],
      "/nowhere/cuhk03-np/labeled/bounding_box_train: no such folder",
      id="no data",
    ),
  ],
)
def test_mistakes_are_one_line(
  repository: Path, tmp_path: Path, arguments: list[str], message: str
):
  workdir = tmp_path / "run"
  result = run_main(repository, f"--workdir={workdir}", *arguments)
  assert result.returncode == 2
  assert result.stderr.startswith("error: ")
  assert message in result.stderr
  assert result.stderr.count("\n") == 1
  assert not workdir.exists()
