"""The config of the speed benchmarks: `configs/cuhk03.py`, at any size.

The benchmarks are to run wherever there is a GPU with JAX, Flax, Optax and PyTorch on it. Config
files also import `ml_collections`, though only for a dict whose items are attributes. So that they
need not be copied, they get such a dict here.
"""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from magnifier_jax.config import Config

NUM_PEOPLE = 767  # CUHK03-NP's identities to train on
_FILE = Path(__file__).parents[1] / "configs" / "cuhk03.py"


class AttributeDict(dict):
  """Nested dicts whose items are attributes: all that config files ask of a `ConfigDict`."""

  def __init__(self, fields: dict[str, Any]):
    nested = ((key, AttributeDict(v) if isinstance(v, dict) else v) for key, v in fields.items())
    super().__init__(nested)

  __getattr__ = dict.__getitem__
  __setattr__ = dict.__setitem__


def cuhk03_config(backbone: str, image_size_hw: tuple[int, int], dtype: str) -> Config:
  """Returns the authors' code on CUHK03-NP, with every loss on from the first step.

  Args:
    backbone: of `config.ModelConfig`.
    image_size_hw: pixels, multiples of 32.
    dtype: of the network's arithmetic.

  Raises:
    ConfigError: when a value is not one that the config allows.
  """
  stand_in = SimpleNamespace(ConfigDict=AttributeDict)
  with mock.patch.dict(sys.modules, ml_collections=stand_in):
    config = runpy.run_path(str(_FILE))["get_config"]()
  config.dtype = dtype
  config.model.backbone = backbone
  config.data.image_size_hw = image_size_hw
  config.loss.diversity_start_epoch = 1
  return Config.from_config_dict(config)
