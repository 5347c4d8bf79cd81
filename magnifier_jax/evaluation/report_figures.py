"""Figures of a report: CMC, distances and training curves, as SVG in `data:` addresses.

Text and axes take the reader's light or dark colour scheme. matplotlib's figures are used without
pyplot, so nothing is kept between calls and no display is needed.
"""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from magnifier_jax.evaluation.report_data import DistanceHistogram, OperatingPoint, ResultRow
from magnifier_jax.evaluation.report_pictures import data_uri

# At least 3:1 against the page's white and its near-black, and each with its own dash pattern, so
# that colour is never the only cue.
_LINE_STYLES = (
  ("#2f7fd1", "-"),
  ("#d1660a", "--"),
  ("#0f8a5f", "-."),
  ("#a15bc0", ":"),
  ("#8a7a1e", (0, (6, 1, 1, 1, 1, 1))),
)
_INK = "#010203"  # stands for the scheme's text colour until the SVG is written
_SCHEME_STYLE = (
  "<style>svg{color:#1f2328}@media (prefers-color-scheme:dark){svg{color:#e6e8eb}}</style>"
)
_WIDE_INCHES = (5.6, 3.4)
_SMALL_INCHES = (2.4, 1.75)  # two side by side on a phone keep legible labels
_RC = {
  "svg.fonttype": "none",
  "svg.hashsalt": "report",  # the same data give the same file
  "font.size": 10,
  "text.color": _INK,
  "axes.edgecolor": _INK,
  "axes.labelcolor": _INK,
  "axes.facecolor": "none",
  "axes.grid": True,
  "axes.spines.right": False,
  "axes.spines.top": False,
  "figure.facecolor": "none",
  "grid.color": _INK,
  "grid.alpha": 0.15,
  "legend.frameon": False,
  "xtick.color": _INK,
  "ytick.color": _INK,
}
_POINTS_WITH_MARKERS = 12  # fewer points than this are marked, so that a single one is seen


class Chart(NamedTuple):
  """A drawn figure: its heading, the picture's address, and what it says in words."""

  title: str
  uri: str
  alt: str


class Curve(NamedTuple):
  """A logged quantity; `x` and `y` are [n] float64 in the order of steps."""

  name: str
  x: np.ndarray
  y: np.ndarray


class TrainingCurves(NamedTuple):
  """What a training log holds, against `axis`, which is 'epoch' or 'step'."""

  axis: str
  losses: tuple[Curve, ...]
  learning_rate: Curve | None
  evaluations: tuple[Curve, ...]


def cmc_chart(results: Sequence[ResultRow]) -> Chart | None:
  """Draws the cumulative matching characteristic of each row that has one."""
  rows = [row for row in results if row.cmc is not None]
  if not rows:
    return None
  with matplotlib.rc_context(_RC):
    figure, axes = _new_figure(_WIDE_INCHES)
    for index, row in enumerate(rows):
      colour, dashes = _LINE_STYLES[index % len(_LINE_STYLES)]
      ranks = np.arange(1, len(row.cmc) + 1)
      axes.plot(
        ranks, 100 * row.cmc, color=colour, linestyle=dashes, marker="o", markersize=4,
        markevery=[rank - 1 for rank in _marked_ranks(len(row.cmc))], label=row.name,
      )  # fmt: skip
    axes.set(xlabel="rank", ylabel="queries matched (%)", ylim=(None, 101))
    axes.set_xticks(_marked_ranks(max(len(row.cmc) for row in rows)))
    if len(rows) > 1:
      axes.legend(loc="lower right")
    uri = _svg_uri(figure)
  alt = "; ".join(
    f"{row.name}: {100 * row.cmc[0]:.1f} % at rank 1, {100 * row.cmc[-1]:.1f} % at rank "
    f"{len(row.cmc)}"
    for row in rows
  )
  return Chart("Cumulative matching characteristic", uri, f"CMC curves. {alt}.")


def distance_chart(
  histogram: DistanceHistogram, operating_points: Sequence[OperatingPoint]
) -> Chart:
  """Draws how genuine and impostor distances are spread, with the thresholds as upright lines.

  Either kind is scaled to its own total: impostor pairs outnumber genuine ones a thousandfold.
  """
  with matplotlib.rc_context(_RC):
    figure, axes = _new_figure(_WIDE_INCHES)
    for index, kind in enumerate(("genuine", "impostor")):
      counts = np.asarray(getattr(histogram, kind), np.float64)
      share = 100 * counts / max(counts.sum(), 1)
      colour, dashes = _LINE_STYLES[index]
      axes.stairs(share, histogram.edges, color=colour, alpha=0.25, fill=True)
      axes.stairs(
        share, histogram.edges, color=colour, linestyle=dashes, linewidth=1.5,
        label=f"{kind}, {int(counts.sum()):,} pairs",
      )  # fmt: skip
    _draw_thresholds(axes, operating_points)
    axes.set(xlabel=histogram.distance_name, ylabel="pairs in a bin (%)", ylim=(0, None))
    axes.set_xlim(*_occupied_range(histogram))
    figure.legend(loc="outside lower center", ncols=2)
    uri = _svg_uri(figure)
  alt = (
    f"Histograms of {histogram.distance_name}: the median is near "
    f"{_median(histogram.genuine, histogram.edges):.3g} for genuine pairs and near "
    f"{_median(histogram.impostor, histogram.edges):.3g} for impostor pairs."
  )
  return Chart("Genuine and impostor distances", uri, alt)


def training_charts(curves: TrainingCurves) -> tuple[Chart, ...]:
  """Draws a small chart for every loss term, the learning rate and the evaluations."""
  charts = [_curve_chart(curve.name, (curve,), curves.axis) for curve in curves.losses]
  if curves.learning_rate is not None:
    charts.append(_curve_chart("learning rate", (curves.learning_rate,), curves.axis, log=True))
  if curves.evaluations:
    charts.append(_curve_chart("evaluation (%)", curves.evaluations, curves.axis))
  return tuple(charts)


def training_curves(log: Sequence[Mapping[str, float]]) -> TrainingCurves:
  """Sorts the records of `metrics.jsonl` into curves.

  A run that went back to a checkpoint logs some steps twice; the later record counts.

  Args:
    log: records with 'step', perhaps 'epoch', and any of 'loss/…' (the total first, then by
      name), 'learning_rate', 'eval/rank1' and 'eval/mAP'. Records without an epoch, as those of
      evaluations, are placed by their step.
  """
  steps = _by_step(log, "epoch")
  axis = "epoch" if steps else "step"

  def curve(key: str, name: str, scale: float = 1.0) -> Curve | None:
    values = _by_step(log, key)
    if not values:
      return None
    x = np.array(list(values), np.float64)
    if axis == "epoch":
      x = np.interp(x, list(steps), list(steps.values()))
    return Curve(name, x, scale * np.array(list(values.values()), np.float64))

  terms = {key.removeprefix("loss/") for record in log for key in record if key[:5] == "loss/"}
  losses = [
    curve(f"loss/{term}", _loss_name(term))
    for term in sorted(terms, key=lambda term: (term != "total", term))
  ]
  evaluations = (curve("eval/rank1", "rank 1", 100.0), curve("eval/mAP", "mAP", 100.0))
  return TrainingCurves(
    axis, tuple(losses), curve("learning_rate", "learning rate"), tuple(filter(None, evaluations))
  )


def _loss_name(term: str) -> str:
  words = ("ID" if word == "id" else word for word in term.split("_"))
  return f"{' '.join(words)} loss"


def _by_step(log: Sequence[Mapping[str, float]], key: str) -> dict[float, float]:
  values = {record["step"]: record[key] for record in log if key in record}
  return dict(sorted(values.items()))


def _curve_chart(title: str, curves: Sequence[Curve], axis: str, log: bool = False) -> Chart:
  with matplotlib.rc_context(_RC | {"font.size": 9}):
    figure, axes = _new_figure(_SMALL_INCHES)
    for curve, (colour, dashes) in zip(curves, _LINE_STYLES):
      marker = "o" if len(curve.x) < _POINTS_WITH_MARKERS else None
      axes.plot(
        curve.x, curve.y, color=colour, linestyle=dashes, linewidth=1.2, marker=marker,
        markersize=3, label=curve.name,
      )  # fmt: skip
    axes.set_xlabel(axis)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if log and all((curve.y > 0).all() for curve in curves):
      axes.set_yscale("log")
    else:
      axes.yaxis.set_major_locator(MaxNLocator(4))
    if len(curves) > 1:
      axes.legend(fontsize=8)
    uri = _svg_uri(figure)
  alt = "; ".join(
    f"{curve.name} from {curve.y[0]:.4g} at {axis} {curve.x[0]:g} to {curve.y[-1]:.4g} at "
    f"{axis} {curve.x[-1]:g}"
    for curve in curves
  )
  return Chart(title, uri, f"{alt[0].upper()}{alt[1:]}.")


def _marked_ranks(max_rank: int) -> list[int]:
  return [rank for rank in (1, 5, 10, 20, 50, 100) if rank <= max_rank]


def _draw_thresholds(axes: Axes, operating_points: Sequence[OperatingPoint]) -> None:
  for point in operating_points:
    axes.axvline(point.distance_threshold, color=_INK, linewidth=1, linestyle=(0, (3, 2)))
    axes.annotate(
      f"{point.false_accept_rate:g}",
      (point.distance_threshold, 1.02),
      xycoords=("data", "axes fraction"),
      rotation=90,
      ha="center",
      va="bottom",
      fontsize=8,
    )


def _occupied_range(histogram: DistanceHistogram) -> tuple[float, float]:
  occupied = np.flatnonzero(np.asarray(histogram.genuine) + np.asarray(histogram.impostor))
  if len(occupied) == 0:
    return float(histogram.edges[0]), float(histogram.edges[-1])
  return float(histogram.edges[occupied[0]]), float(histogram.edges[occupied[-1] + 1])


def _median(counts: np.ndarray, edges: np.ndarray) -> float:
  """Returns the centre of the bin that holds the median, NaN where nothing was counted."""
  cumulative = np.cumsum(counts)
  if cumulative[-1] == 0:
    return np.nan
  index = int(np.searchsorted(cumulative, cumulative[-1] / 2))
  return float(edges[index] + edges[index + 1]) / 2


def _new_figure(size_inches: tuple[float, float]) -> tuple[Figure, Axes]:
  figure = Figure(figsize=size_inches, layout="constrained")
  return figure, figure.add_subplot()


def _svg_uri(figure: Figure) -> str:
  buffer = io.StringIO()
  no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
  figure.savefig(buffer, format="svg", metadata=no_metadata)
  svg = buffer.getvalue()
  svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
  opening, body = svg.split(">", 1)
  return data_uri("image/svg+xml", f"{opening}>{_SCHEME_STYLE}{body}".encode())
