"""The HTML report of an evaluation: one file that shows people what the network found.

The page holds its style and its pictures and asks for nothing outside itself; its content security
policy keeps it so. It shows photographs of the data set, so it belongs in the workdir.
"""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jinja2

from magnifier_jax.body_parts import PARTS
from magnifier_jax.evaluation.identities import NO_CAMERA_ID
from magnifier_jax.evaluation.metric_names import HEADINGS
from magnifier_jax.files.whole_file import write_text
from magnifier_jax.report import charts as report_charts
from magnifier_jax.report import pictures as report_pictures
from magnifier_jax.report.contents import ReportData, ReportError, ResultRow
from magnifier_jax.report.html_templates import template_environment
from magnifier_jax.report.occlusion_charts import occlusion_charts
from magnifier_jax.report.published import PublishedResult

_MINUS = "\u2212"
_MISSING = "\u2013"


class PublishedComparison(NamedTuple):
  """A published row beside the row of this run that measures the same; points of a percent.

  Without such a row, `row` is None and the differences are NaN.
  """

  name: str
  published: PublishedResult
  row: ResultRow | None
  rank1_difference: float
  mAP_difference: float


def write_report(path: str | os.PathLike[str], data: ReportData) -> None:
  """Writes the report to `path`, whole or not at all.

  Raises:
    ReportError: if the folder of `path` does not exist.
    WriteError: if the file cannot be written.
  """
  path = pathlib.Path(path)
  if not path.parent.is_dir():
    raise ReportError(f"path: the folder {path.parent} does not exist; create it first")
  write_text(path, render_report(data))


def render_report(data: ReportData) -> str:
  """Returns the report as one HTML page; the same data give the same page."""
  panels = report_charts.training_panels(data.training_log)
  charts = [report_charts.cmc_chart(data.results)]
  if data.distances is not None:
    charts.append(report_charts.distance_chart(data.distances, data.operating_points))
  return (
    _environment()
    .get_template("report.html")
    .render(
      data=data,
      headline=data.results[0],
      metrics={key: name for key, name in HEADINGS.items() if _is_measured(data, key)},
      comparisons=_comparisons(data),
      charts=[chart for chart in charts if chart is not None],
      training_charts=[report_charts.training_chart(panel) for panel in panels],
      occlusion_charts=occlusion_charts(data.occlusion) if data.occlusion else [],
      distance_unit=report_charts.DISTANCE_UNIT,
      parts=PARTS,
    )
  )


def _environment() -> jinja2.Environment:
  environment = template_environment("magnifier_jax.report")
  environment.filters |= {
    "percent": _percent,
    "difference": _difference,
    "camera": _camera,
    "photograph": report_pictures.photograph_uri,
    "paint": report_pictures.paint_parts,
  }
  return environment


def _is_measured(data: ReportData, metric: str) -> bool:
  return any(metric in row.summary for row in data.results)


def _comparisons(data: ReportData) -> list[PublishedComparison]:
  """Returns the published rows from the weakest to the best, as they build on each other."""
  rows = data.published.rows
  names = sorted(rows, key=lambda name: rows[name].mAP)
  return [_compare(data, name) for name in names]


def _compare(data: ReportData, published_name: str) -> PublishedComparison:
  """Compares a published row with the row of this run that measures the same, if there is one."""
  row = next((row for row in data.results if row.published == published_name), None)
  published = data.published.rows[published_name]
  summary = row.summary if row is not None else {}
  return PublishedComparison(
    name=published_name,
    published=published,
    row=row,
    rank1_difference=100 * _metric(summary, "rank1") - published.rank1,
    mAP_difference=100 * _metric(summary, "mAP") - published.mAP,
  )


def _metric(summary: Mapping[str, float], name: str) -> float:
  return summary.get(name, math.nan)


def _percent(fraction: float | None) -> str:
  if fraction is None or math.isnan(fraction):
    return _MISSING
  return f"{100 * fraction:.1f}"


def _camera(camera_id: int) -> str:
  return "camera unknown" if camera_id == NO_CAMERA_ID else f"camera {camera_id}"


def _difference(points: float) -> str:
  if math.isnan(points):
    return _MISSING
  return f"{points:+.1f}".replace("-", _MINUS)
