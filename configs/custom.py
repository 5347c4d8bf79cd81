"""MagnifierNet on images of your own.

Put them into data/my_images: folders train, query and gallery with names such as 0001_c1_1.jpg
(person 1, camera 1), or images.csv with the columns image, person, camera, split. Then, with a name
of your own in place of my_images:

  python -m magnifier_jax.tools.check_data --config=configs/custom.py
  python -m magnifier_jax.main --config=configs/custom.py
  python -m magnifier_jax.main --config=configs/custom.py:small   ResNet-18 at 128 × 64

The data set is --config.data.dataset=image_list/NAME, its folder lies in --config.data.manual_dir.
The network and the recipe are those of `cuhk03.py`; `:paper` is the paper's figure. Variants
combine with commas.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By path: it is the neighbour of this file, wherever their folder lies.
_CUHK03 = runpy.run_path(str(Path(__file__).with_name("cuhk03.py")))


def get_config(variant: str = "full") -> ConfigDict:
  """Returns the config of a comma-separated list of variants."""
  config = _CUHK03["get_config"]()
  config.name = "custom"
  config.data.dataset = "image_list/my_images"
  return _CUHK03["with_variants"](config, variant, _VARIANTS, __file__)


_VARIANTS = {"full": lambda config: None} | _CUHK03["NETWORK_VARIANTS"]
