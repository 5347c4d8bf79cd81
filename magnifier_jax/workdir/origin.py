"""Where the weights that a workdir began with came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from magnifier_jax.files.whole_file import make_folder, write_json

ORIGIN = "initial_weights.json"


def write_origin(workdir: Path, origin: Mapping[str, Any]) -> None:
  """Writes down beside the checkpoints where their weights came from."""
  if jax.process_index() == 0:
    make_folder(workdir)
    write_json(workdir / ORIGIN, dict(origin))
