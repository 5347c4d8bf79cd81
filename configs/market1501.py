"""MagnifierNet on Market-1501: 751 people to train on, 750 to test on.

The network and the recipe are those of `cuhk03.py`; the authors published no numbers for this data
set.

  python -m magnifier_jax.main --config=configs/market1501.py         the code
  python -m magnifier_jax.main --config=configs/market1501.py:paper   the paper's figure
  python -m magnifier_jax.main --config=configs/market1501.py:small   ResNet-18 at 128 × 64

Variants combine with commas.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By path: it is the neighbour of this file, wherever their folder lies.
_CUHK03 = runpy.run_path(str(Path(__file__).with_name("cuhk03.py")))


def get_config(variant: str = "full") -> ConfigDict:
  """Returns the config of a comma-separated list of variants."""
  config = _CUHK03["get_config"]()
  config.name = "market1501"
  config.data.dataset = "market1501"
  return _CUHK03["with_variants"](config, variant, _VARIANTS, __file__)


_VARIANTS = {"full": lambda config: None} | _CUHK03["NETWORK_VARIANTS"]
