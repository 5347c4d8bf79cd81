"""The settings of the authors' code, and where a run differs from them."""

import functools
import runpy
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from magnifier_jax.config import Config
from magnifier_jax.files.own_configs import configs_folder

# Fields in which a run may differ from the authors' and still be theirs, each with its reason. All
# others are reported.
WITHOUT_INFLUENCE = MappingProxyType(
  {
    "name": "a label",
    "seed": "stated beside; the authors give none",
    "data.dataset": "stated beside; the authors have several",
    "data.manual_dir": "where the images lie",
    "data.data_dir": "where the prepared copy lies",
    "data.num_workers": "only the speed: a batch does not depend on it",
    "model.rematerialize": "only memory and time",
    "training.log_every_steps": "only the log",
    "training.keep_checkpoints": "only the disk",
    "evaluation.every_epochs": "how often the run is measured",
    "evaluation.initial": "one measurement more, before training",
    "evaluation.batch_size": "an embedding does not depend on the other images",
    "evaluation.rerank": "re-ranked results are a row of their own",
    "evaluation.save_embeddings": "one file more",
    "evaluation.embeddings": "where embeddings lie",
    "evaluation.save_ranking": "one file more",
  }
)


@functools.cache
def reference_settings() -> Mapping[str, Any]:
  """Returns {dotted name: value} of `configs/cuhk03.py:authors`.

  Raises:
    OwnConfigsError: when the file is not there.
  """
  file = runpy.run_path(str(configs_folder() / "cuhk03.py"))
  config = Config.from_config_dict(file["get_config"]("authors"))
  return MappingProxyType(dict(leaves(config.to_dict())))


def differences_from_reference(config: Mapping[str, Any]) -> list[str]:
  """Returns 'field: value here (the authors: value there)' for each setting that is not theirs.

  Args:
    config: nested, as `Config.to_dict` returns it or a checkpoint stores it; a field that an
      earlier version did not have may be missing.

  Raises:
    OwnConfigsError: when the authors' settings are not there.
  """
  ours, theirs = dict(leaves(config)), reference_settings()
  return [
    f"{name}: {_shown(name, ours, 'not recorded')} "
    f"(the authors: {_shown(name, theirs, 'no such setting')})"
    for name in {**theirs, **ours}
    if name not in WITHOUT_INFLUENCE
    and (name not in ours or name not in theirs or ours[name] != theirs[name])
  ]


def _shown(name: str, values: Mapping[str, Any], otherwise: str) -> str:
  """Returns a value as text; an empty string in quotes, or it would not be seen."""
  value = values.get(name, otherwise)
  return "''" if value == "" else str(value)


def leaves(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
  """Yields (dotted name, value) of a nested config; lists, which JSON has, become tuples."""
  for name, value in config.items():
    child = f"{path}.{name}" if path else name
    if isinstance(value, Mapping):
      yield from leaves(value, child)
    else:
      yield child, tuple(value) if isinstance(value, list) else value
