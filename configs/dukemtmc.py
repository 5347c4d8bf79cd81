"""MagnifierNet on DukeMTMC-reID: 702 people to train on, 702 to test on.

Published by the authors (ImageNet weights): rank-1 90.0, mAP 80.7. The network and the recipe are
those of `cuhk03.py`.

  python -m magnifier_jax.main --config=configs/dukemtmc.py            the code
  python -m magnifier_jax.main --config=configs/dukemtmc.py:occluded   Occluded-Duke
  python -m magnifier_jax.main --config=configs/dukemtmc.py:paper      the paper's figure
  python -m magnifier_jax.main --config=configs/dukemtmc.py:small      ResNet-18 at 128 × 64

Variants combine with commas: `:occluded,small`.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By path: it is the neighbour of this file, wherever their folder lies.
_CUHK03 = runpy.run_path(str(Path(__file__).with_name("cuhk03.py")))


def get_config(variant: str = "full") -> ConfigDict:
  """Returns the config of a comma-separated list of variants."""
  config = _CUHK03["get_config"]()
  config.name = "dukemtmc"
  config.data.dataset = "dukemtmc_reid"
  return _CUHK03["with_variants"](config, variant, _VARIANTS, __file__)


def _occluded(config: ConfigDict) -> None:
  config.name = config.name.replace("dukemtmc", "occluded_duke")
  config.data.dataset = "occluded_duke"


_VARIANTS = {
  "full": lambda config: None,
  "occluded": _occluded,
} | _CUHK03["NETWORK_VARIANTS"]
