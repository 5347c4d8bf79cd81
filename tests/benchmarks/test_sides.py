"""Both sides of the step benchmarks, at the smallest size."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks import drawn_files
from benchmarks.file_sides import JaxFiles, PytorchFiles
from benchmarks.jax_side import JaxSide
from benchmarks.side import Work, draw_batch
from benchmarks.worker import Worker
from magnifier_jax.retrieval.images import load
from tests.stored_architecture import stored_architecture

SMALL = Work("embedding", "cpu", 2, (32, 32), "resnet18", "float32")
FULL = Work("train_step", "cpu", 8, (384, 192), "resnet50", "float32")


def test_batch_is_the_same_each_time_and_fits_the_network():
  first, second = draw_batch(FULL), draw_batch(FULL)
  for ours, theirs in zip(first, second):
    np.testing.assert_array_equal(ours, theirs)
  assert first.image.shape == (8, 384, 192, 3)
  assert first.part_labels.shape == (8, 48, 24)
  assert first.keep_mask.shape == (8, 24, 12)
  assert first.person_id.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
  assert 0 < first.keep_mask.mean() < 1


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
  """The network without most of its branches."""
  config = SMALL.config()
  off = {"adversarial_branch": False, "fusion_branch": False, "part_segmentation": False}
  cheap = dataclasses.replace(config, model=dataclasses.replace(config.model, **off))
  monkeypatch.setattr(Work, "config", lambda self: cheap)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
  """Three images, and a fourth with the contents of the first."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(drawn_files, "_DRAWN", 3)
    return drawn_files.draw_files(tmp_path_factory.mktemp("files"), 4)


def test_drawn_files_recur_under_other_names(files: list[str]):
  contents = [Path(file).read_bytes() for file in files]
  assert len(set(files)) == 4
  assert len(set(contents)) == 3
  assert contents[3] == contents[0]


@pytest.mark.usefixtures("cheap")
def test_our_side_embeds_files(files: list[str]):
  with stored_architecture():
    side = JaxFiles(SMALL, files)
    side.warm_up()
  assert side.lap(3).seconds > 0
  assert side.bare_lap(3).seconds > 0
  assert side.gallery_lap(3).seconds > 0


@pytest.mark.usefixtures("cheap")
def test_the_twin_embeds_the_same_files(files: list[str], monkeypatch: pytest.MonkeyPatch):
  torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install .[torch]")
  side = PytorchFiles(SMALL, files, "contiguous")
  side.warm_up()
  given = []
  embed = side._twin.embed
  monkeypatch.setattr(side._twin, "embed", lambda images: given.append(images) or embed(images))
  side.load_by("threads")
  assert side.lap(3).seconds > 0
  side.lap(1)
  expected = np.stack([load(file, 0, (32, 32)).pixels for file in (*files, *files[:2], *files[:2])])
  np.testing.assert_array_equal(torch.cat(given).numpy(), expected)


def test_the_twin_loads_in_processes_too(files: list[str]):
  pytest.importorskip("torch", reason="PyTorch is not installed: pip install .[torch]")
  # A DataLoader forks, which it must not in a process with JAX.
  with Worker("PyTorch", "benchmarks.file_sides:PytorchFiles", SMALL, files, "contiguous") as twin:
    twin.call("load_by", "1")
    assert twin.call("lap", 2).seconds > 0
    assert twin.call("lap", 1).seconds > 0  # the same processes


@pytest.mark.usefixtures("cheap")
def test_our_side_measures_a_step():
  side = JaxSide(SMALL)
  assert side.warm_up().seconds > 0
  lap = side.lap(2)
  assert lap.seconds > 0
  assert lap.cpu_seconds > 0
  peaks = side.peaks()
  assert peaks.steps is None or 0 < peaks.steps <= peaks.whole
  assert side.matrix_product(64)(1) is None


def test_twin_measures_a_step_and_counts_operations():
  pytest.importorskip("torch", reason="PyTorch is not installed: pip install .[torch]")
  from benchmarks.pytorch_side import PytorchSide

  side = PytorchSide(SMALL._replace(task="train_step", batch_size=8), "channels_last")
  assert side.warm_up().seconds > 0
  assert side.lap(2).cpu_seconds > 0
  # Three times as many in training, less the gradient of the images, and the classifiers besides.
  embedding = PytorchSide(SMALL, "contiguous").model_operations()
  assert embedding == 2 * PytorchSide(SMALL._replace(batch_size=1), "contiguous").model_operations()
  stem = 2 * 8 * 16 * 16 * 64 * 3 * 49
  training = side.model_operations()
  assert 3 * 4 * embedding - stem <= training < 1.1 * 3 * 4 * embedding
