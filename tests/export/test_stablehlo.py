"""The StableHLO file runs where this package is not."""

import subprocess
import sys
from pathlib import Path

import jax.export
import numpy as np
import pytest

from magnifier_jax.export.gate import LIMIT, ParityError, check, relative_norms
from magnifier_jax.export.stablehlo import stablehlo_program

from .conftest import Case

_RUN_ALONE = """
import sys
sys.modules["magnifier_jax"] = None
import jax, jax.export, numpy as np
exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
np.save("embeddings.npy", exported.call(np.load("images.npy")))
"""


@pytest.fixture(scope="module")
def stablehlo_file(lstm: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """The network as StableHLO that takes pixels."""
  file = tmp_path_factory.mktemp("stablehlo") / "model.stablehlo"
  file.write_bytes(stablehlo_program(lstm.net, lstm.of(network_input="uint8").signature))
  return file


def test_it_runs_without_this_package(lstm: Case, stablehlo_file: Path):
  folder = stablehlo_file.parent
  np.save(folder / "images.npy", lstm.reference.images[:3])
  subprocess.run([sys.executable, "-c", _RUN_ALONE], cwd=folder, check=True)
  found = np.load(folder / "embeddings.npy")
  assert relative_norms(found, lstm.reference.embeddings[:3]).max() < LIMIT / 10


def test_it_is_for_every_platform_and_number_of_images(stablehlo_file: Path):
  exported = jax.export.deserialize(bytearray(stablehlo_file.read_bytes()))
  assert exported.platforms == ("cpu", "cuda", "tpu")
  [images] = exported.in_avals
  assert (images.shape[1:], images.dtype) == ((64, 32, 3), np.uint8)
  assert not isinstance(images.shape[0], int)


def test_the_gate_takes_it_and_refuses_another_network(lstm: Case, tmp_path: Path):
  case = lstm.of("global", network_input="uint8")
  file = tmp_path / "model.stablehlo"
  file.write_bytes(stablehlo_program(lstm.net, case.signature))
  assert max(check(file, case.reference, case.signature).differences.values()) < LIMIT
  other = case.reference._replace(images=255 - case.reference.images)
  with pytest.raises(ParityError, match="global by"):
    check(file, other, case.signature)


def test_float_input_is_normalised_outside(lstm: Case):
  branch = lstm.of("global")
  exported = jax.export.deserialize(bytearray(stablehlo_program(lstm.net, branch.signature)))
  images = branch.signature.to_input(branch.reference.images[:2])
  assert images.shape == (2, 3, 64, 32)
  found = np.asarray(exported.call(images))
  assert relative_norms(found, branch.reference.embeddings[:2]).max() < LIMIT / 10
