"""The opponent of the input pipeline makes our batches."""

from pathlib import Path

import numpy as np
import pytest

from magnifier_jax.data import dataset
from magnifier_jax.data.pipeline import train_batches
from tests.data.conftest import _make_config
from tests.data.noise_tree import write_tree

pytest.importorskip("torch", reason="PyTorch is not installed: pip install .[torch]")

from benchmarks.input_pipeline import write_files
from benchmarks.pytorch_input import IdentityBatches, ImageFiles, loader


def test_batches_are_ours_up_to_rounding(tmp_path: Path):
  write_tree(tmp_path, train_images=(3, 5, 2, 4, 7, 1), test_people=5)
  config = _make_config(tmp_path)
  train = dataset.load(config.data)
  files = tmp_path / "files"
  files.mkdir()
  write_files(train.train, files)
  person_id = train.train.person_id
  plain, normalized = (ImageFiles(files, person_id, config.data, on) for on in (False, True))
  for ours, theirs, floats in zip(
    train_batches(train, config, 0, 3),
    loader(plain, IdentityBatches(person_id, config, 0, 3), 0),
    loader(normalized, IdentityBatches(person_id, config, 0, 3), 0),
    strict=True,
  ):
    differences = np.abs(theirs.image.numpy().astype(int) - ours.image)
    assert differences.max() <= 1
    for name in ("part_labels", "keep_mask", "person_id"):
      np.testing.assert_array_equal(getattr(theirs, name).numpy(), getattr(ours, name))
    pixels = theirs.image.numpy().transpose(0, 3, 1, 2)
    mean, std = (np.reshape(x, (3, 1, 1)) for x in (config.data.pixel_mean, config.data.pixel_std))
    np.testing.assert_allclose(floats.image.numpy(), (pixels - mean) / std, atol=1e-5)
