"""MagnifierNet on MSMT17: 1,041 people from 15 cameras to train on, 3,060 to test on.

The network and the recipe are those of `cuhk03.py`; the authors published no numbers for this data
set.

  python -m magnifier_jax.main --config=configs/msmt17.py            MSMT17_V1, trained on train
  python -m magnifier_jax.main --config=configs/msmt17.py:v2         MSMT17_V2, with masked faces
  python -m magnifier_jax.main --config=configs/msmt17.py:trainval   trained on train and val
  python -m magnifier_jax.main --config=configs/msmt17.py:paper      the paper's figure
  python -m magnifier_jax.main --config=configs/msmt17.py:small      ResNet-18 at 128 × 64

Variants combine with commas: `:v2,trainval`.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By path: it is the neighbour of this file, wherever their folder lies.
_CUHK03 = runpy.run_path(str(Path(__file__).with_name("cuhk03.py")))


def get_config(variant: str = "v1") -> ConfigDict:
  """Returns the config of a comma-separated list of variants."""
  config = _CUHK03["get_config"]()
  config.name = "msmt17"
  config.data.dataset = "msmt17/v1"
  return _CUHK03["with_variants"](config, variant, _VARIANTS, __file__)


def _v2(config: ConfigDict) -> None:
  config.name = config.name.replace("msmt17", "msmt17_v2")
  config.data.dataset = config.data.dataset.replace("v1", "v2")


def _trainval(config: ConfigDict) -> None:
  config.name += "_trainval"
  config.data.dataset += "_trainval"


_VARIANTS = {
  "v1": lambda config: None,
  "v2": _v2,
  "trainval": _trainval,
} | _CUHK03["NETWORK_VARIANTS"]
