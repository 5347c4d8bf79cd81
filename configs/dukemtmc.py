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

# By path: the folder of configs need not be importable where a run is started.
_CUHK03 = runpy.run_path(str(Path(__file__).with_name("cuhk03.py")))


def get_config(variant: str = "full") -> ConfigDict:
  """Returns the config of a comma-separated list of variants."""
  config = _CUHK03["get_config"]()
  config.name = "dukemtmc"
  config.data.dataset = "dukemtmc_reid"
  config.published = {
    "baseline": {"rank1": 82.7, "mAP": 70.8},
    "+ part segmentation": {"rank1": 83.9, "mAP": 72.9},
    "+ semantic adversarial branch": {"rank1": 87.1, "mAP": 76.7},
    "+ semantic fusion branch, without the adversarial one": {"rank1": 86.7, "mAP": 75.2},
    "all": {"rank1": 90.0, "mAP": 80.7},
    "all, re-ranked": {"rank1": 91.8, "mAP": 90.6},
  }
  config.published_source = "the authors' read-me: DukeMTMC-reID, ImageNet weights"
  _CUHK03["apply_variants"](config, variant, _VARIANTS, "configs/dukemtmc.py")
  return config


def _occluded(config: ConfigDict) -> None:
  config.name = config.name.replace("dukemtmc", "occluded_duke")
  config.data.dataset = "occluded_duke"
  config.published = {}
  config.published_source = "the authors published no numbers for Occluded-Duke"


_VARIANTS = {
  "full": lambda config: None,
  "occluded": _occluded,
} | _CUHK03["NETWORK_VARIANTS"]
