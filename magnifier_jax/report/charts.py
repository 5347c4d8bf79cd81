"""Charts of a report: CMC, distances and training curves, as SVG in `data:` addresses.

Text and axes take the reader's light or dark colour scheme. matplotlib's figures are used without
pyplot, so nothing is kept between calls and no display is needed.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from magnifier_jax.body_parts import PART_NAMES
from magnifier_jax.evaluation.metric_names import HEADINGS, PUBLISHED
from magnifier_jax.evaluation.pair_distances import OperatingPoint, PairDistances
from magnifier_jax.report.contents import ResultRow
from magnifier_jax.report.pictures import data_uri

# At least 3.5:1 against the panels of either colour scheme, and each with its own dash pattern, so
# that colour is never the only cue.
_COLOURS = ("#2f7fd1", "#c95f08", "#0f8a5f", "#a15bc0", "#8a7a1e")
_DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
_HATCHES = ("", "//", "..", "xx", "--")
_HATCH_COLOUR = "#ffffff"
_INK = "#010203"  # stands for the scheme's text colour until the SVG is written
_SCHEME_STYLE = (
  "<style>svg{color:#1f2328}@media (prefers-color-scheme:dark){svg{color:#e6e8eb}}</style>"
)
_WIDE_INCHES = (5.6, 3.4)
_BAR_INCHES = 0.14
_LABEL_LETTERS = 26  # of a group's name in a line
_SMALL_INCHES = (2.4, 1.75)  # two side by side on a phone keep legible labels
_SMALL_WIDE_INCHES = (5.0, 1.75)
_RC = {
  "svg.fonttype": "none",
  "svg.hashsalt": "report",  # the same data give the same file
  "font.size": 10,
  "text.color": _INK,
  "axes.edgecolor": _INK,
  "axes.labelcolor": _INK,
  "axes.facecolor": "none",
  "axes.grid": True,
  "axes.titlesize": "medium",
  "axes.spines.right": False,
  "axes.spines.top": False,
  "figure.facecolor": "none",
  "grid.color": _INK,
  "grid.alpha": 0.15,
  "legend.frameon": False,
  "xtick.color": _INK,
  "ytick.color": _INK,
}
DISTANCE_UNIT = "squared Euclidean distance"
_POINTS_WITH_MARKERS = 12  # fewer points than this are marked, so that a single one is seen


class Chart(NamedTuple):
  """A drawn figure: its heading, the picture as SVG, and what it says in words."""

  title: str
  svg: str
  alt: str
  wide: bool = False  # takes the room of two

  @property
  def uri(self) -> str:
    """The picture's `data:` address."""
    return data_uri("image/svg+xml", self.svg.encode())


class BarSeries(NamedTuple):
  """Bars of one kind, one for each group of a chart; NaN is not drawn."""

  name: str
  values: np.ndarray  # [n] float64
  errors: np.ndarray  # [n] float64, half the length of the error bar
  published: np.ndarray  # [n] float64, NaN where nothing was


class Curve(NamedTuple):
  """A logged quantity; `x` and `y` are [n] float64 in the order of steps."""

  name: str
  x: np.ndarray
  y: np.ndarray


class Panel(NamedTuple):
  """Curves that share one small chart, against `axis`, which is 'epoch' or 'step'."""

  title: str
  axis: str
  curves: tuple[Curve, ...]
  log_scale: bool = False


def cmc_chart(results: Sequence[ResultRow]) -> Chart | None:
  """Draws the cumulative matching characteristic of each row that has one."""
  rows = [row for row in results if row.cmc is not None]
  if not rows:
    return None
  with matplotlib.rc_context(_RC):
    figure, axes = _new_figure(_WIDE_INCHES)
    for index, row in enumerate(rows):
      colour, dashes = _line_style(index)
      ranks = np.arange(1, len(row.cmc) + 1)
      axes.plot(
        ranks, 100 * row.cmc, color=colour, linestyle=dashes, marker="o", markersize=4,
        markevery=[rank - 1 for rank in _marked_ranks(len(row.cmc))], label=row.name,
      )  # fmt: skip
    axes.set(xlabel="rank", ylabel="queries matched (%)", ylim=(None, 101))
    axes.set_xticks(_marked_ranks(max(len(row.cmc) for row in rows)))
    if len(rows) > 1:
      figure.legend(loc="outside lower center", ncols=len(rows))
    svg = _svg(figure)
  alt = "; ".join(
    f"{row.name}: {100 * row.cmc[0]:.1f} % at rank 1, {100 * row.cmc[-1]:.1f} % at rank "
    f"{len(row.cmc)}"
    for row in rows
  )
  return Chart("Cumulative matching characteristic", svg, f"CMC curves. {alt}.")


def distance_chart(distances: PairDistances, operating_points: Sequence[OperatingPoint]) -> Chart:
  """Draws how genuine and impostor distances are spread, with the thresholds as upright lines.

  Either kind is scaled to its own total: impostor pairs outnumber genuine ones a thousandfold.
  """
  with matplotlib.rc_context(_RC):
    figure, axes = _new_figure(_WIDE_INCHES)
    for index, kind in enumerate(("genuine", "impostor")):
      counts = np.asarray(getattr(distances, kind), np.float64)
      share = 100 * counts / max(counts.sum(), 1)
      colour, dashes = _line_style(index)
      axes.stairs(share, distances.edges, color=colour, alpha=0.25, fill=True)
      axes.stairs(
        share, distances.edges, color=colour, linestyle=dashes, linewidth=1.5,
        label=f"{kind}, {int(counts.sum()):,} pairs",
      )  # fmt: skip
    _draw_thresholds(axes, operating_points)
    axes.set(xlabel=DISTANCE_UNIT, ylabel="pairs in a bin (%)", ylim=(0, None))
    axes.set_xlim(*_occupied_range(distances))
    figure.legend(loc="outside lower center", ncols=2)
    svg = _svg(figure)
  alt = (
    f"Histograms of {DISTANCE_UNIT}: the median is near "
    f"{_median(distances.genuine, distances.edges):.3g} for genuine pairs and near "
    f"{_median(distances.impostor, distances.edges):.3g} for impostor pairs."
  )
  return Chart("Genuine and impostor distances", svg, alt)


def bar_chart(title: str, axis: str, groups: Sequence[str], series: Sequence[BarSeries]) -> Chart:
  """Draws lying bars with error bars, those of a group together, from top to bottom.

  Published values have axes of their own beside, with their own scale: of runs that are far from
  them, differences would not be seen otherwise.

  Args:
    title: of the chart.
    axis: what the bars measure.
    groups: n names.
    series: kinds of bars, each with n values.
  """
  has_published = any(np.isfinite(bars.published).any() for bars in series)
  height = 1.0 + _BAR_INCHES * (1 + len(groups) * (1 + len(series)))
  with matplotlib.rc_context(_RC):
    figure = Figure(figsize=(_WIDE_INCHES[0], height), layout="constrained")
    ours, *theirs = np.atleast_1d(figure.subplots(1, 1 + has_published, sharey=True))
    ours.set_xlabel(axis)
    _draw_bars(ours, [(bars.name, bars.values, bars.errors) for bars in series])
    for axes in theirs:
      _draw_bars(axes, [(None, bars.published, None) for bars in series])
      axes.set(xlabel=axis, title="published")
      ours.set_title("these runs")
    lines = [textwrap.fill(name.replace("_", " "), _LABEL_LETTERS) for name in groups]
    ours.set_yticks(range(len(groups)), lines)
    ours.set_ylim(len(groups) - 0.5, -0.5)
    figure.legend(loc="outside lower center", ncols=4)
    svg = _svg(figure)
  return Chart(title, svg, f"Bars of {axis}. {_bars_in_words(groups, series)}.")


def _draw_bars(
  axes: Axes, series: Sequence[tuple[str | None, np.ndarray, np.ndarray | None]]
) -> None:
  """Draws bars, each kind given by its name, its values and its errors."""
  thickness = 0.8 / len(series)
  for index, (name, values, errors) in enumerate(series):
    at = np.arange(len(values)) + thickness * (index - (len(series) - 1) / 2)
    axes.barh(
      at, values, thickness * 0.9, xerr=errors, color=_line_style(index)[0], label=name,
      hatch=_HATCHES[index % len(_HATCHES)], edgecolor=_HATCH_COLOUR, linewidth=0,
      error_kw={"ecolor": _INK, "capsize": 3, "elinewidth": 1.2},
    )  # fmt: skip
  axes.set_xlim(0, None)
  axes.xaxis.set_major_locator(MaxNLocator(5))
  axes.tick_params(axis="y", length=0)
  axes.grid(visible=False, axis="y")


def _bars_in_words(groups: Sequence[str], series: Sequence[BarSeries]) -> str:
  return "; ".join(
    f"{group}, {bars.name}: {value:.1f}" + (f" ± {error:.1f}" if np.isfinite(error) else "")
    for bars in series
    for group, value, error in zip(groups, bars.values, bars.errors)
    if np.isfinite(value)
  )


def training_chart(panel: Panel) -> Chart:
  """Draws a small chart; a wide one, with its legend aside, for the curves of all parts."""
  wide = len(panel.curves) > 2
  with matplotlib.rc_context(_RC | {"font.size": 9, "legend.fontsize": 8}):
    figure, axes = _new_figure(_SMALL_WIDE_INCHES if wide else _SMALL_INCHES)
    for index, curve in enumerate(panel.curves):
      colour, dashes = _line_style(index)
      marker = "o" if len(curve.x) < _POINTS_WITH_MARKERS else None
      axes.plot(
        curve.x, curve.y, color=colour, linestyle=dashes, linewidth=1.2, marker=marker,
        markersize=3, label=curve.name,
      )  # fmt: skip
    axes.set_xlabel(panel.axis)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if panel.log_scale and all((curve.y > 0).all() for curve in panel.curves):
      axes.set_yscale("log")
    else:
      axes.yaxis.set_major_locator(MaxNLocator(4))
    if wide:
      figure.legend(loc="outside right upper")
    elif len(panel.curves) > 1:
      axes.legend()
    svg = _svg(figure)
  alt = "; ".join(
    f"{curve.name} {curve.y[0]:.4g} at {curve.x[0]:g}, {curve.y[-1]:.4g} at {curve.x[-1]:g}"
    for curve in panel.curves
  )
  return Chart(panel.title, svg, f"Against the {panel.axis}: {alt}.", wide)


def training_panels(log: Sequence[Mapping[str, float]]) -> tuple[Panel, ...]:
  """Sorts the records of `metrics.jsonl` into panels: losses, learning rate, evaluations.

  If a step was logged twice, the later record counts. Records without an epoch, as those of
  evaluations, are placed by their step. The weights β, logged beside the losses, are left out:
  they say what was occluded in one batch.

  Args:
    log: records with 'step', perhaps 'epoch', and any of 'loss/TERM', 'loss/TERM/PART',
      'learning_rate', 'eval/rank1' and 'eval/mAP' (fractions).
  """
  epochs = _by_step(log, "epoch")
  axis = "epoch" if epochs else "step"
  epochs = {0: 0.0} | epochs  # an evaluation may precede the first step

  def curve(key: str, name: str, scale: float = 1.0) -> Curve:
    values = _by_step(log, key)
    x = np.array(list(values), np.float64)
    if axis == "epoch":
      x = np.interp(x, list(epochs), list(epochs.values()))
    return Curve(name, x, scale * np.array(list(values.values()), np.float64))

  panels = [
    Panel(_loss_name(term), axis, tuple(curve(key, name) for key, name in keys.items()))
    for term, keys in _loss_terms(log).items()
  ]
  panels += [
    Panel("learning rate", axis, (curve("learning_rate", "learning rate"),), log_scale=True),
    Panel(
      "evaluation (%)",
      axis,
      tuple(curve(f"eval/{metric}", HEADINGS[metric], 100) for metric in PUBLISHED),
    ),
  ]
  return tuple(panel for panel in panels if all(len(curve.x) for curve in panel.curves))


def _loss_terms(log: Sequence[Mapping[str, float]]) -> dict[str, dict[str, str]]:
  """Returns term → key in the log → name of the curve, in the order of the log."""
  terms: dict[str, dict[str, str]] = {}
  for key in dict.fromkeys(key for record in log for key in record):
    prefix, _, rest = key.partition("/")
    term, _, part = rest.partition("/")
    if prefix == "loss" and not term.endswith("_beta"):
      name = PART_NAMES[int(part)] if part else _loss_name(term)
      terms.setdefault(term, {})[key] = name
  return terms


def _loss_name(term: str) -> str:
  words = ("ID" if word == "id" else word for word in term.split("_"))
  return f"{' '.join(words)} loss"


def _by_step(log: Sequence[Mapping[str, float]], key: str) -> dict[float, float]:
  values = {record["step"]: record[key] for record in log if key in record}
  return dict(sorted(values.items()))


def _marked_ranks(max_rank: int) -> list[int]:
  return [rank for rank in (1, 5, 10, 20, 50, 100) if rank <= max_rank]


def _line_style(index: int) -> tuple[str, str | tuple]:
  """Returns the colour and the dashes of a chart's line; no pair comes twice among 25."""
  turn, colour = divmod(index, len(_COLOURS))
  return _COLOURS[colour], _DASHES[(colour + turn) % len(_DASHES)]


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


def _occupied_range(distances: PairDistances) -> tuple[float, float]:
  occupied = np.flatnonzero(np.asarray(distances.genuine) + np.asarray(distances.impostor))
  if len(occupied) == 0:
    return float(distances.edges[0]), float(distances.edges[-1])
  return float(distances.edges[occupied[0]]), float(distances.edges[occupied[-1] + 1])


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


def _svg(figure: Figure) -> str:
  buffer = io.StringIO()
  no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
  figure.savefig(buffer, format="svg", metadata=no_metadata)
  svg = buffer.getvalue()
  svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
  opening, body = svg.split(">", 1)
  return f"{opening}>{_SCHEME_STYLE}{body}"
