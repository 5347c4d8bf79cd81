"""Where the weights that a workdir began with came from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

ORIGIN = "initial_weights.json"


def write_origin(workdir: Path, origin: Mapping[str, Any]) -> None:
  """Writes down beside the checkpoints where their weights came from."""
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / ORIGIN).write_text(json.dumps(dict(origin), indent=2) + "\n")
