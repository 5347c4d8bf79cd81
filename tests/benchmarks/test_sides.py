"""Both sides of the step benchmarks, at the smallest size."""

import dataclasses

import numpy as np
import pytest

from benchmarks.jax_side import JaxSide
from benchmarks.side import Work, draw_batch

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


def test_our_side_measures_a_step(monkeypatch: pytest.MonkeyPatch):
  config = SMALL.config()
  off = {"adversarial_branch": False, "fusion_branch": False, "part_segmentation": False}
  cheap = dataclasses.replace(config, model=dataclasses.replace(config.model, **off))
  monkeypatch.setattr(Work, "config", lambda self: cheap)
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
