"""Records of runs as earlier versions wrote them, in the form of today's."""

from collections.abc import Mapping
from typing import Any

# They were part of a run's config; now `configs/published.toml` has them.
_DROPPED = ("published", "published_source")


def with_todays_fields(record: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the record of a run without the config fields that no longer exist.

  Args:
    record: of a checkpoint or of `config.json`; 'config' is the nested config.
  """
  config = {name: value for name, value in record["config"].items() if name not in _DROPPED}
  return {**record, "config": config}
