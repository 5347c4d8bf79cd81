"""Whole networks at their own sizes, in onnxruntime, in OpenCV and in a tracker.

OpenCV gets an environment of its own, and is skipped where that cannot be installed. BoxMOT brings
6 GB and installs packages into the environment that it runs in, so somebody has to make it one and
name its Python:

  python -m venv /tmp/boxmot && /tmp/boxmot/bin/pip install 'boxmot[onnx]'
  MAGNIFIER_JAX_TEST_BOXMOT=/tmp/boxmot/bin/python make test-slow
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.export.gate import BATCHES, LIMIT, check, relative_norms
from magnifier_jax.export.programs import open_program
from magnifier_jax.interop.state_dict import load_state_dict
from magnifier_jax.models.network import create_network
from magnifier_jax.trained_network import TrainedNetwork
from magnifier_jax.workdir.checkpoints import run_record
from tests.golden_numbers import fixture

from .conftest import Case, make_case
from .random_network import random_network

pytestmark = pytest.mark.slow

ROUNDING = 5e-6  # relative norm of an image's difference
BOXMOT = "MAGNIFIER_JAX_TEST_BOXMOT"

_RUN_IN_OPENCV = f"""
import cv2, numpy as np
network, rows = cv2.dnn.readNetFromONNX("model.onnx"), []
for images in np.split(np.load("images.npy"), {np.cumsum(BATCHES)[:-1].tolist()}):
  network.setInput(images)
  rows.append(network.forward())
np.save("found.npy", np.concatenate(rows))
print(cv2.__version__)
"""

_RUN_IN_BOXMOT = """
import numpy as np
from boxmot.reid.core.runtime import ReID
reid = ReID("model.onnx", device="cpu")
np.save("found.npy", reid(np.load("frame.npy"), np.load("boxes.npy")))
crops = reid.model.get_crops(np.load("boxes.npy"), np.load("frame.npy"))
np.save("crops.npy", crops.numpy())
"""


def of_the_reference() -> TrainedNetwork:
  """A ResNet-50 with the weights of the golden numbers."""
  config = Config.from_config_dict(get_config())
  network, init = create_network(config, fixture.NUM_CLASSES)
  shapes = jax.eval_shape(lambda: init(jax.random.key(0)))
  weights = load_state_dict(fixture.state_dict(), *shapes)
  record = run_record(config, fixture.NUM_CLASSES, steps_per_epoch=1)
  return TrainedNetwork(network, *weights, config, step=0, best=False, record=record)


def of_variant(variant: str) -> TrainedNetwork:
  """A network of `configs/cuhk03.py` with random weights."""
  return random_network(Config.from_config_dict(get_config(variant)))


@pytest.fixture(scope="module", params=["reference", "paper", "small"])
def case(request: pytest.FixtureRequest) -> Case:
  """A network at its own size, run on ten images."""
  named = request.param
  return make_case(of_the_reference() if named == "reference" else of_variant(named))


def test_onnxruntime_agrees(case: Case, tmp_path: Path):
  parity = check(case.write_onnx(tmp_path / "model.onnx"), case.reference, case.signature)
  assert parity.near_ties == ()
  assert max(parity.differences.values()) < ROUNDING, parity.differences


@pytest.fixture(scope="module")
def opencv(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A Python that has OpenCV."""
  folder = tmp_path_factory.mktemp("opencv")
  subprocess.run([sys.executable, "-m", "venv", folder], check=True)
  python = folder / "bin" / "python"
  install = [python, "-m", "pip", "install", "--quiet", "numpy", "opencv-python-headless"]
  done = subprocess.run(install, capture_output=True, text=True, check=False)
  if done.returncode:
    pytest.skip(f"OpenCV cannot be installed: {done.stderr.strip().splitlines()[-1]}")
  return python


def test_opencv_agrees(case: Case, opencv: Path, tmp_path: Path):
  case.write_onnx(tmp_path / "model.onnx")
  np.save(tmp_path / "images.npy", case.signature.to_input(case.reference.images))
  subprocess.run([opencv, "-c", _RUN_IN_OPENCV], cwd=tmp_path, check=True)
  ours, expected = (
    case.signature.by_branch(rows)
    for rows in (np.load(tmp_path / "found.npy"), case.reference.embeddings)
  )
  for branch, rows in ours.items():
    assert relative_norms(rows, expected[branch]).max() < 1e-5, branch


def test_boxmot_takes_the_file_as_it_is(lstm: Case, tmp_path: Path):
  if BOXMOT not in os.environ:
    pytest.skip(f"${BOXMOT} names no Python with BoxMOT")
  lstm.write_onnx(tmp_path / "model.onnx")
  random = np.random.default_rng(0)
  np.save(tmp_path / "frame.npy", random.integers(0, 256, (300, 400, 3), np.uint8))
  boxes = np.array([[10, 20, 60, 150], [100, 50, 170, 250], [200, 10, 260, 120]], np.float32)
  np.save(tmp_path / "boxes.npy", boxes)
  subprocess.run(
    [os.environ[BOXMOT], "-c", _RUN_IN_BOXMOT],
    cwd=tmp_path,
    env=os.environ | {"PIP_NO_INDEX": "1"},  # it fails where it would install something
    check=True,
  )
  crops, found = np.load(tmp_path / "crops.npy"), np.load(tmp_path / "found.npy")
  assert crops.shape == (3, 3, *lstm.signature.image_size_hw)
  assert np.abs(crops.mean(axis=(0, 2, 3))).max() < 1  # normalised by BoxMOT itself
  expected = open_program(tmp_path / "model.onnx", on_cpu=True)(crops)
  assert relative_norms(found, expected).max() < LIMIT
