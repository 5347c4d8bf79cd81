"""Records of runs as earlier versions wrote them, in the form of today's."""

from collections.abc import Mapping
from typing import Any

# They were part of a run's config; now `configs/published.toml` has them.
_DROPPED = ("published", "published_source")

# Fields that came later, with the value that is what earlier versions did.
_ADDED = {
  "model": {"global_pooling": "average"},
  "data": {
    "mixing": "proportional",
    "augmentation": {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0},
  },
  "optimizer": {"schedule": "step", "ema_decay": 0.0},
  "evaluation": {
    "camera_rule": "cross_camera",
    "single_shot_draws": 10,
    "occlude": "none",
    "occlude_bottom": (),
    "occlude_mask": "predicted",
    "occlude_fill": "mean",
    "occlude_seed": 0,
    "save_ranking": 0,
  },
}


def with_todays_fields(record: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the record of a run with the config fields of today.

  Args:
    record: of a checkpoint or of `config.json`; 'config' is the nested config.
  """
  config = {name: value for name, value in record["config"].items() if name not in _DROPPED}
  return {**record, "config": _completed(config, _ADDED)}


def _completed(values: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
  """Returns nested fields with those that are missing in the groups that there are."""
  completed = dict(values)
  for name, value in added.items():
    if not isinstance(value, Mapping):
      completed.setdefault(name, value)
    elif isinstance(values.get(name), Mapping):
      completed[name] = _completed(values[name], value)
  return completed
