"""Records of runs as earlier versions wrote them, in the form of today's."""

from collections.abc import Mapping
from typing import Any

# They were part of a run's config; now `configs/published.toml` has them.
_DROPPED = ("published", "published_source")

# Fields that came later, by group, with the value that is what earlier versions did.
_ADDED = {
  "data": {"mixing": "proportional"},
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
  for group, added in _ADDED.items():
    if group in config:
      config[group] = added | config[group]
  return {**record, "config": config}
