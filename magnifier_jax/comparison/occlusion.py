"""How well the queries of several runs are found with something hidden in them, over the seeds."""

from collections.abc import Mapping
from typing import NamedTuple

from magnifier_jax.comparison.runs import Group, Statistic, statistic


class OccludedGroup(NamedTuple):
  """What runs that differ in nothing but the seed found.

  Attributes:
    conventions: what was hidden and how, in a sentence.
    hidden: {what was hidden: {row of results: {metric: over the seeds}}}; nothing comes first.
  """

  conventions: str
  hidden: Mapping[str, Mapping[str, Mapping[str, Statistic]]]


def occluded(group: Group) -> OccludedGroup | None:
  """Returns what a group found; None unless all of its runs were measured in the same way."""
  found = [run.occlusion for run in group.runs if run.occlusion is not None]
  conventions = {results.conventions() for results in found}
  if len(found) < len(group.runs) or len(conventions) > 1:
    return None
  first, *others = ({name: rows for name, _, rows in results.lines()} for results in found)
  hidden = {
    name: {
      row: {
        metric: statistic([value, *(other[name][row][metric] for other in others)])
        for metric, value in metrics.items()
        if all(metric in other[name][row] for other in others)
      }
      for row, metrics in rows.items()
      if all(row in other[name] for other in others)
    }
    for name, rows in first.items()
    if all(name in other for other in others)
  }
  return OccludedGroup(conventions.pop(), hidden)
