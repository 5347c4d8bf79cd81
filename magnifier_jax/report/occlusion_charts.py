"""Charts of what hiding costs: by part, and by the share that is hidden from the bottom."""

import numpy as np

from magnifier_jax.evaluation.occlusion_results import OcclusionResults
from magnifier_jax.report.charts import BarSeries, Chart, Curve, Panel, bar_chart, training_chart


def occlusion_charts(results: OcclusionResults) -> list[Chart]:
  """Draws mAP by hidden part, and against the share that is hidden from the bottom, if any."""
  by_part = {"nothing": results.plain} | {name: part.rows for name, part in results.parts.items()}
  missing = np.full(len(by_part), np.nan)
  series = [
    BarSeries(
      row, 100 * np.array([rows[row]["mAP"] for rows in by_part.values()]), missing, missing
    )
    for row in results.plain
  ]
  charts = [bar_chart("mAP by hidden part", "mAP (%)", list(by_part), series)]
  if results.bottom:
    shares = np.array([0.0, *results.bottom])
    found = [results.plain, *(hidden.rows for hidden in results.bottom.values())]
    order = np.argsort(shares)
    curves = tuple(
      Curve(row, 100 * shares[order], 100 * np.array([rows[row]["mAP"] for rows in found])[order])
      for row in results.plain
    )
    title = "mAP (%) with the image hidden from the bottom"
    charts.append(training_chart(Panel(title, "hidden rows (%)", curves)))
  return charts
