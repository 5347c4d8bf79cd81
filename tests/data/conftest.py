"""Small configs and data sets."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.data import dataset
from magnifier_jax.data.dataset import ReidDataset
from magnifier_jax.data.datasets.reid_builder import ReidBuilder

from .noise_tree import write_tree

MakeConfig = Callable[..., Config]


def _make_config(manual_dir: Path, **overrides: Any) -> Config:
  """Returns a validated config of 64 × 32 images; overrides are dotted names with `__`."""
  config = get_config("small")
  config.data.manual_dir = str(manual_dir)
  config.data.data_dir = str(manual_dir / "prepared")
  config.data.image_size_hw = (64, 32)
  config.data.identities_per_batch = 4
  config.data.images_per_identity = 2
  config.evaluation.batch_size = 8
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in overrides.items()}
  )
  return Config.from_config_dict(config)


@pytest.fixture
def make_config(tmp_path: Path) -> MakeConfig:
  """Makes a config whose data lie in `tmp_path`, with overrides such as `data__dataset=…`."""
  return lambda **overrides: _make_config(tmp_path, **overrides)


@pytest.fixture
def no_preparing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
  """Makes contexts in which preparing a data set fails the test."""

  @contextlib.contextmanager
  def context() -> Iterator[None]:
    with monkeypatch.context() as patch:
      patch.setattr(ReidBuilder, "write", lambda *_: pytest.fail("prepared again"))
      yield

  return context


@pytest.fixture(scope="session")
def noise_config(tmp_path_factory: pytest.TempPathFactory) -> MakeConfig:
  """Makes configs of the data set that `noise_dataset` opens."""
  manual_dir = tmp_path_factory.mktemp("noise")
  write_tree(manual_dir, train_images=(3, 5, 2, 4, 7, 1), test_people=5)
  return lambda **overrides: _make_config(manual_dir, **overrides)


@pytest.fixture(scope="session")
def noise_dataset(noise_config: MakeConfig) -> ReidDataset:
  """A prepared data set of noise: 6 people with 1 to 7 images to train on."""
  return dataset.load(noise_config().data)
