"""A comparison of runs as tables: plain text, Markdown, JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from magnifier_jax.comparison.occlusion import OccludedGroup, occluded
from magnifier_jax.comparison.run_results import WHOLE
from magnifier_jax.comparison.runs import Group, RunComparison, Statistic
from magnifier_jax.evaluation.metric_names import HEADINGS, PUBLISHED

_MISSING = "–"


class Table(NamedTuple):
  """Cells under a heading; the first column is text, the others are numbers."""

  caption: str
  heading: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]


def tables(comparison: RunComparison) -> list[Table]:
  """Returns the tables of one test set: whole embeddings, branches alone, occluded queries."""
  found = [_whole_table(comparison)]
  if any(row != WHOLE for row in comparison.rows):
    found += [_branch_table(comparison, metric) for metric in ("mAP", "rank1")]
  return found + _occlusion_tables(comparison)


def conventions(comparison: RunComparison) -> str:
  """Returns what the numbers of the tables are, in a sentence or two."""
  text = "Mean ± sample standard deviation over the seeds; a single seed has none."
  text += f" {comparison.rule}"
  if any(group.published(WHOLE) for group in comparison.groups):
    text += f" Published numbers: {comparison.published_source}; the difference is in points."
  for group in comparison.groups:
    if group.trained_on_others:
      text += (
        f" {group.name} was trained on {group.trained_on_others}, tested on {comparison.dataset}."
      )
    if group.chosen_on:
      text += f" The {group.chosen_on} chose the checkpoint of {group.name}."
  return text


def _whole_table(comparison: RunComparison) -> Table:
  heading = ["run", "seeds", "updates", "untrained mAP"]
  for metric in PUBLISHED:
    heading += [HEADINGS[metric], "published", "difference"]
  rows = tuple(
    (
      group.name,
      ", ".join(map(str, group.seeds)),
      _MISSING if group.step is None else f"{group.step:,}",
      _percent(group.untrained("mAP")),
      *(cell for metric in PUBLISHED for cell in _beside_published(group, metric)),
    )
    for group in comparison.groups
  )
  return Table("The whole embedding (%)", tuple(heading), rows)


def _beside_published(group: Group, metric: str) -> tuple[str, str, str]:
  measured, published = group.statistic(WHOLE, metric), group.published(WHOLE)
  if published is None:
    return _percent(measured), _MISSING, _MISSING
  points = 100 * measured.mean - getattr(published, metric)
  return (
    _percent(measured),
    f"{getattr(published, metric):.1f}",
    f"{points:+.1f}".replace("-", "−") if math.isfinite(points) else _MISSING,
  )


def _branch_table(comparison: RunComparison, metric: str) -> Table:
  rows = tuple(
    (
      group.name,
      *(
        _percent(group.statistic(row, metric) if row in group.rows else None)
        for row in comparison.rows
      ),
    )
    for group in comparison.groups
  )
  caption = f"{HEADINGS[metric]} of each branch alone, and of all (%)"
  return Table(caption, ("run", *comparison.rows), rows)


def _occlusion_tables(comparison: RunComparison) -> list[Table]:
  """Returns a table for each way in which queries were occluded."""
  measured: dict[str, dict[str, OccludedGroup]] = {}
  for group in comparison.groups:
    if (found := occluded(group)) is not None:
      measured.setdefault(found.conventions, {})[group.name] = found
  return [_occlusion_table(conventions, groups) for conventions, groups in measured.items()]


def _occlusion_table(conventions: str, groups: Mapping[str, OccludedGroup]) -> Table:
  things = list(dict.fromkeys(name for group in groups.values() for name in group.hidden))
  rows = tuple(
    (name, row, *(_percent(_of_hidden(group, thing, row)) for thing in things))
    for name, group in groups.items()
    for row in next(iter(group.hidden.values()))
  )
  caption = f"{HEADINGS['mAP']} by what is hidden in the queries (%). {conventions}"
  return Table(caption, ("run", "embedding", *things), rows)


def _of_hidden(group: OccludedGroup, thing: str, row: str) -> Statistic | None:
  return group.hidden.get(thing, {}).get(row, {}).get("mAP")


def _percent(statistic: Statistic | None) -> str:
  if statistic is None or math.isnan(statistic.mean):
    return _MISSING
  if math.isnan(statistic.spread):
    return f"{100 * statistic.mean:.1f}"
  return f"{100 * statistic.mean:.1f} ± {100 * statistic.spread:.1f}"


class Switches(NamedTuple):
  """In what some runs differ from the authors' code."""

  heading: str
  settings: list[str]  # 'field: value (the authors: value)'

  def line(self) -> str:
    """Returns all of it as one line of text."""
    return f"{self.heading}: {'; '.join(self.settings) or 'nothing'}"


def switches(comparison: RunComparison) -> list[Switches]:
  """Returns in what the runs differ from the authors' code; what they share first."""
  differences = {group.name: group.differences_from_reference() for group in comparison.groups}
  first = next(iter(differences.values()))
  if len(differences) == 1:
    (name,) = differences
    return [Switches(f"{name} differs from the authors' code in", first)]
  shared = [line for line in first if all(line in lines for lines in differences.values())]
  found = [Switches("all runs differ from the authors' code in", shared)]
  besides = "moreover in" if shared else "from the authors' code in"
  for name, own in differences.items():
    more = [line for line in own if line not in shared]
    if more:
      found.append(Switches(f"{name} differs {besides}", more))
  return found


def as_text(comparisons: Sequence[RunComparison]) -> str:
  """Returns the comparison for a terminal."""
  blocks = []
  for comparison in comparisons:
    blocks.append(f"{comparison.dataset}\n{conventions(comparison)}")
    blocks += [_text_table(table) for table in tables(comparison)]
    blocks.append("\n".join(found.line() for found in switches(comparison)))
  return "\n\n".join(blocks)


def _text_table(table: Table) -> str:
  cells = [table.heading, *table.rows]
  widths = [max(map(len, column)) for column in zip(*cells)]
  lines = [
    "  ".join(
      cell.rjust(width) if i else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(row, widths))
    )
    for row in cells
  ]
  return "\n".join([table.caption, *lines])


def as_markdown(comparisons: Sequence[RunComparison]) -> str:
  """Returns the comparison as Markdown."""
  blocks = []
  for comparison in comparisons:
    blocks.append(f"## {comparison.dataset}\n\n{conventions(comparison)}")
    blocks += [_markdown_table(table) for table in tables(comparison)]
    blocks.append("\n".join(f"- {found.line()}" for found in switches(comparison)))
  return "\n\n".join(blocks) + "\n"


def _markdown_table(table: Table) -> str:
  lines = [table.heading, ["---"] + ["---:"] * (len(table.heading) - 1), *table.rows]
  return "\n".join([table.caption, "", *(f"| {' | '.join(line)} |" for line in lines)])


def as_json(comparisons: Sequence[RunComparison]) -> dict[str, Any]:
  """Returns the comparison as JSON values, accuracies as fractions; what is missing is null."""
  return {
    "spread": "sample standard deviation over the seeds",  # null for a single one
    "test_sets": [
      {
        "dataset": comparison.dataset,
        "published_source": comparison.published_source,
        "groups": [_group_values(group) for group in comparison.groups],
      }
      for comparison in comparisons
    ],
  }


def _group_values(group: Group) -> dict[str, Any]:
  published = group.published(WHOLE)
  return {
    "name": group.name,
    "seeds": list(group.seeds),
    "workdirs": [str(run.workdir) for run in group.runs],
    "initial_weights": [run.initial_weights for run in group.runs],
    "updates": group.step,
    "results": {
      row: {
        metric: _statistic_values(group.statistic(row, metric)) for metric in group.metrics(row)
      }
      for row in group.rows
    },
    "occluded_queries": _occluded_values(group),
    "trained_on": group.runs[0].trained_on,
    "untrained": {
      metric: _statistic_values(group.untrained(metric))
      for metric in PUBLISHED
      if group.untrained(metric) is not None
    },
    "checkpoint_chosen_on": group.chosen_on or None,
    "published_row": group.published_row(WHOLE) or None,
    "published": published and {metric: getattr(published, metric) / 100 for metric in PUBLISHED},
    "differs_from_reference_in": group.differences_from_reference(),
  }


def _occluded_values(group: Group) -> dict[str, Any] | None:
  found = occluded(group)
  if found is None:
    return None
  hidden = {
    name: {
      row: {metric: _statistic_values(value) for metric, value in metrics.items()}
      for row, metrics in rows.items()
    }
    for name, rows in found.hidden.items()
  }
  return {"conventions": found.conventions, "hidden": hidden}


def _statistic_values(statistic: Statistic) -> dict[str, Any]:
  return {
    "mean": _or_null(statistic.mean),
    "spread": _or_null(statistic.spread),
    "values": [_or_null(value) for value in statistic.values],
  }


def _or_null(value: float) -> float | None:
  return None if math.isnan(value) else value
