r"""MagnifierNet on several data sets at once, to be tested on one that it has not seen.

The protocols of domain generalisation train on all but one of Market-1501, CUHK03-NP, MSMT17 and
DukeMTMC-reID and test on the one that was left out. DukeMTMC-reID was withdrawn in 2019, so newer
work does without it: `:without_dukemtmc`. The network and the recipe are those of `cuhk03.py`; the
authors published no numbers for this.

  python -m magnifier_jax.main --config=configs/joint.py                       on all four
  python -m magnifier_jax.main --config=configs/joint.py:leave_out_market1501  on the other three
  python -m magnifier_jax.main --config=configs/joint.py:leave_out_market1501,without_dukemtmc
  python -m magnifier_jax.main --config=configs/joint.py:equal                 as many of each

and then, with the data set that was left out:

  python -m magnifier_jax.main --mode=evaluate --config=configs/market1501.py \\
    --workdir=runs/joint_leave_out_market1501

`--config.data.dataset="('market1501', 'image_list/mine')"` is any other choice. Variants combine
with commas; `:small` and the others of `cuhk03.py` are there too.
"""

import runpy
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

# By path: it is the neighbour of this file, wherever their folder lies.
_CUHK03 = runpy.run_path(str(Path(__file__).with_name("cuhk03.py")))

_DATASETS = {
  "market1501": "market1501",
  "cuhk03": "cuhk03_np/labeled",
  "msmt17": "msmt17/v1",
  "dukemtmc": "dukemtmc_reid",
}


def get_config(variant: str = "full") -> ConfigDict:
  """Returns the config of a comma-separated list of variants."""
  config = _CUHK03["get_config"]()
  config.name = "joint"
  _train_on(config, tuple(_DATASETS.values()))
  return _CUHK03["with_variants"](config, variant, _VARIANTS, __file__)


def _train_on(config: ConfigDict, datasets: tuple[str, ...]) -> None:
  # As text, so that a command line can put one data set in place of several.
  config.data.dataset = str(datasets)


def _without(name: str, prefix: str) -> Callable[[ConfigDict], None]:
  def leave_out(config: ConfigDict) -> None:
    config.name += f"_{prefix}_{name}"
    kept = {other: data for other, data in _DATASETS.items() if other != name}
    _train_on(config, tuple(data for data in kept.values() if repr(data) in config.data.dataset))

  return leave_out


def _mixing(mixing: str) -> Callable[[ConfigDict], None]:
  def set_mixing(config: ConfigDict) -> None:
    config.name += f"_{mixing}"
    config.data.mixing = mixing
    if mixing == "equal":
      config.data.identities_per_batch = 24  # which 2, 3 and 4 data sets share

  return set_mixing


_VARIANTS = (
  {"full": lambda config: None}
  | {f"leave_out_{name}": _without(name, "leave_out") for name in _DATASETS}
  | {"without_dukemtmc": _without("dukemtmc", "without")}
  | {mixing: _mixing(mixing) for mixing in ("equal", "one_dataset")}
  | _CUHK03["NETWORK_VARIANTS"]
)
