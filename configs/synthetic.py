"""MagnifierNet on drawn pedestrians: a whole run without a download or an accelerator.

120 drawn people to train on, 60 others to test on, three cameras. The first run draws them, which
takes about 15 seconds on one core. The network is that of `cuhk03.py:small` on smaller images, its
schedule is shortened for a CPU.

  python -m magnifier_jax.main --config=configs/synthetic.py          2 to 4 minutes on two cores
  python -m magnifier_jax.main --config=configs/synthetic.py:large    767 + 200 people, six cameras

Variants combine with commas.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By path: it is the neighbour of this file, wherever their folder lies.
_CUHK03 = runpy.run_path(str(Path(__file__).with_name("cuhk03.py")))


def get_config(variant: str = "small") -> ConfigDict:
  """Returns the config of a comma-separated list of variants."""
  config = _CUHK03["get_config"]("small")
  config.name = "synthetic"
  config.data.dataset = "synthetic_reid/small"
  config.data.image_size_hw = (96, 32)
  config.optimizer.decay_epochs = (5,)
  config.loss.diversity_start_epoch = 5
  config.training.num_epochs = 6
  config.evaluation.every_epochs = 3
  return _CUHK03["with_variants"](config, variant, _VARIANTS, __file__)


def _large(config: ConfigDict) -> None:
  config.name = config.name.replace("synthetic", "synthetic_large")
  config.data.dataset = "synthetic_reid/large"


# The network is small in both.
_VARIANTS = _CUHK03["NETWORK_VARIANTS"] | {"small": lambda config: None, "large": _large}
