"""Writes a comparison: Markdown and JSON for people and programs, a page and a picture to show."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from magnifier_jax.comparison import CompareError, Comparison
from magnifier_jax.comparison_tables import as_json, as_markdown, as_text

_NAME = "comparison"


def write_comparison(comparisons: Sequence[Comparison], folder: Path) -> str:
  """Writes comparison.md and comparison.json.

  Args:
    comparisons: to write.
    folder: to write into; is made where its parent exists.

  Returns:
    The tables as text, and where the files are.

  Raises:
    CompareError: when the folder cannot be written to.
  """
  contents = {
    "md": as_markdown(comparisons),
    "json": json.dumps(as_json(comparisons), indent=2, allow_nan=False) + "\n",
  }
  try:
    folder.mkdir(exist_ok=True)
    for kind, content in contents.items():
      unfinished = folder / f".{_NAME}.{kind}.tmp"
      unfinished.write_text(content, encoding="utf-8")
      os.replace(unfinished, folder / f"{_NAME}.{kind}")
  except OSError as error:
    raise CompareError(f"{folder}: cannot be written to ({error.strerror})") from error
  return f"{as_text(comparisons)}\n\nwritten: {folder / _NAME}.{{{','.join(contents)}}}"
