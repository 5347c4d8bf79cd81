"""Records of runs as earlier versions wrote them, in the form of today's."""

from collections.abc import Mapping
from typing import Any

# They were part of a run's config; now `configs/published.toml` has them.
_DROPPED = ("published", "published_source")
# Fields of `evaluation` that came later, with the value that does what was done before.
_ADDED_TO_EVALUATION = {"save_ranking": 0}


def with_todays_fields(record: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the record of a run with the config fields of today.

  Args:
    record: of a checkpoint or of `config.json`; 'config' is the nested config.
  """
  config = {name: value for name, value in record["config"].items() if name not in _DROPPED}
  if "evaluation" in config:
    config["evaluation"] = {**_ADDED_TO_EVALUATION, **config["evaluation"]}
  return {**record, "config": config}
