"""Writes a comparison: Markdown and JSON for people and programs, a page and a picture to show."""

import json
from collections.abc import Sequence
from pathlib import Path

from magnifier_jax.comparison.page import accuracy_chart, render_page
from magnifier_jax.comparison.run_results import CompareError
from magnifier_jax.comparison.runs import RunComparison
from magnifier_jax.comparison.tables import as_json, as_markdown
from magnifier_jax.files.whole_file import write_text

SUFFIXES = (".md", ".json", ".html", ".svg")


def write_comparison(comparisons: Sequence[RunComparison], path: Path) -> None:
  """Writes a comparison in the format that the name of the file asks for, whole or not at all.

  Args:
    comparisons: to write.
    path: a file in a folder that exists, whose name ends in one of `SUFFIXES`. The picture of a
      .svg is the bar chart, of a single test set.

  Raises:
    CompareError: when the format is none of these.
    WriteError: when the file cannot be written.
  """
  check_suffix(path)
  write_text(path, _content(comparisons, path))


def check_suffix(path: Path) -> None:
  """Checks that a file's name says which format it is to have.

  Raises:
    CompareError: when it does not.
  """
  if path.suffix not in SUFFIXES:
    raise CompareError(f"{path}: the name must end in one of {', '.join(SUFFIXES)}")


def _content(comparisons: Sequence[RunComparison], path: Path) -> str:
  if path.suffix == ".md":
    return as_markdown(comparisons)
  if path.suffix == ".json":
    return json.dumps(as_json(comparisons), indent=2, allow_nan=False) + "\n"
  if path.suffix == ".html":
    return render_page(comparisons)
  if len(comparisons) > 1:
    sets = ", ".join(comparison.dataset for comparison in comparisons)
    raise CompareError(f"{path}: a picture shows one test set, but these runs have {sets}")
  return accuracy_chart(comparisons[0]).svg
