"""A comparison as a page with bar charts, in the style of a run's report."""

import math
from collections.abc import Sequence

import numpy as np

from magnifier_jax.comparison.run_results import WHOLE
from magnifier_jax.comparison.runs import Group, RunComparison, Statistic
from magnifier_jax.comparison.tables import conventions, switches, tables
from magnifier_jax.evaluation.metric_names import HEADINGS, PUBLISHED
from magnifier_jax.report.charts import BarSeries, Chart, bar_chart
from magnifier_jax.report.html_templates import template_environment


def accuracy_chart(comparison: RunComparison) -> Chart:
  """Draws the whole embedding's accuracies beside the published ones."""
  return bar_chart(
    "The whole embedding",
    "accuracy (%)",
    [group.name for group in comparison.groups],
    [
      _series(HEADINGS[metric], comparison, WHOLE, metric, with_published=True)
      for metric in PUBLISHED
    ],
  )


def branch_chart(comparison: RunComparison) -> Chart | None:
  """Draws the mAP of every branch alone; None when no run has branches."""
  if len(comparison.rows) == 1:
    return None
  return bar_chart(
    "Each branch alone",
    "mAP (%)",
    [group.name for group in comparison.groups],
    [_series(row, comparison, row, "mAP") for row in comparison.rows],
  )


def _series(
  name: str, comparison: RunComparison, row: str, metric: str, with_published: bool = False
) -> BarSeries:
  groups = comparison.groups
  measured = [_statistic(group, row, metric) for group in groups]
  published = [group.published(row) if with_published else None for group in groups]
  return BarSeries(
    name,
    100 * np.array([statistic.mean for statistic in measured]),
    100 * np.array([statistic.spread for statistic in measured]),
    np.array([math.nan if known is None else getattr(known, metric) for known in published]),
  )


def _statistic(group: Group, row: str, metric: str) -> Statistic:
  if row not in group.rows:
    return Statistic(math.nan, math.nan, ())
  return group.statistic(row, metric)


def render_page(comparisons: Sequence[RunComparison]) -> str:
  """Returns the comparison as one HTML page that asks for nothing outside itself."""
  environment = template_environment("magnifier_jax.comparison", "magnifier_jax.report")
  test_sets = [
    {
      "comparison": comparison,
      "charts": [
        chart for chart in (accuracy_chart(comparison), branch_chart(comparison)) if chart
      ],
      "conventions": conventions(comparison),
      "tables": tables(comparison),
      "switches": switches(comparison),
    }
    for comparison in comparisons
  ]
  template = environment.get_template("comparison.html")
  return template.render(test_sets=test_sets)
