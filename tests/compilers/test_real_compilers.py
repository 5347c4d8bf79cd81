"""What the compilers of TPUs and GPUs make of a tiny network's training step.

They lie where `.ci/run` installs them, or among the other packages.
"""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(sys.prefix) / "compilers"
TINY = (
  "--config=configs/cuhk03.py:small",
  "--config.dtype=bfloat16",
  "--config.model.backbone=resnet10_narrow",
  "--config.model.adversarial_dim=16",
  "--config.model.fusion_dim=16",
  "--config.data.identities_per_batch=4",
  "--config.data.images_per_identity=2",
  "--people=10",
)
MAX_CYCLES = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def compilers() -> None:
  """Skips where there are none."""
  found = {found.name for found in metadata.distributions(path=[*sys.path, str(FOLDER)])}
  if not {"libtpu", "jax-cuda12-pjrt"} <= found:
    pytest.skip("the compilers of TPUs and GPUs are not installed")


def compile_for(repository: Path, folder: Path, target: str, size: str) -> dict[str, Any]:
  """Returns the tool's JSON, and the compiled program as `hlo`."""
  result, hlo = folder / "result.json", folder / "program.hlo"
  done = subprocess.run(
    [
      *(sys.executable, "-m", "magnifier_jax.tools.compile_for", f"--target={target}", *TINY),
      *(f"--config.data.image_size_hw={size}", f"--json={result}", f"--hlo={hlo}", "--overwrite"),
    ],
    cwd=repository,
    env={**os.environ, "PYTHONPATH": str(FOLDER)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr.count("\n") == 1  # what it does, and nothing of the compilers'
  return json.loads(result.read_text()) | {"hlo": hlo.read_text()}


@pytest.fixture(scope="module")
def on_tpus(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
  """The step on four chips of TPU v5e."""
  return compile_for(repository, tmp_path_factory.mktemp("tpu"), "v5e:2x2", "64,32")


@pytest.fixture(scope="module")
def on_a_gpu(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
  """The step on an H100, with XLA's default options."""
  return compile_for(repository, tmp_path_factory.mktemp("gpu"), "h100", "64,32")


@pytest.mark.parametrize("target", ["on_tpus", "on_a_gpu"])
def test_the_state_takes_its_own_place(request: pytest.FixtureRequest, target: str):
  result = request.getfixturevalue(target)
  assert result["alias_bytes"] > 100_000
  assert result["output_bytes"] - result["alias_bytes"] < 40_000  # the metrics, padded


@pytest.mark.parametrize("target", ["on_tpus", "on_a_gpu"])
def test_nothing_is_in_the_form_for_cpus(request: pytest.FixtureRequest, target: str):
  files = re.findall(r'^\d+ "(.*\.py)"$', request.getfixturevalue(target)["hlo"], re.MULTILINE)
  assert any(file.endswith("models/convolution.py") for file in files)
  assert not [file for file in files if "/models/cpu/" in file]


def test_collectives(on_tpus: dict[str, Any], on_a_gpu: dict[str, Any]):
  counts = {found["kind"]: found["count"] for found in on_tpus["collectives"]}
  assert counts.keys() <= {"all-reduce", "all-gather", "collective-permute"}
  assert counts["all-reduce"] <= 26
  assert on_a_gpu["collectives"] == []


def test_no_collective_grows_with_the_image(
  on_tpus: dict[str, Any], repository: Path, tmp_path: Path
):
  larger = compile_for(repository, tmp_path, "v5e:2x2", "96,32")
  assert larger["flops"] > 1.3 * on_tpus["flops"]
  assert larger["collectives"] == on_tpus["collectives"]


def test_estimates(on_tpus: dict[str, Any], on_a_gpu: dict[str, Any]):
  assert 0 < on_tpus["estimated_cycles"] <= MAX_CYCLES
  assert (on_tpus["chips"], on_tpus["images_per_chip"]) == (4, 2)
  assert on_a_gpu["kernels"] > 100
  assert on_a_gpu["traffic_bytes"] > 0
