"""Accuracies of queries of which something is hidden, beside those of the whole queries."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from magnifier_jax.evaluation.metric_names import HEADINGS, PUBLISHED
from magnifier_jax.evaluation.ranking import RankingMetrics

OCCLUSION = "occlusion"  # their key in `metrics.json`

Accuracies = Mapping[str, Mapping[str, float]]  # {row of the table: {metric: fraction}}


class Hidden(NamedTuple):
  """What was found with one thing hidden in every query."""

  share: float  # of the pixels of the queries, mean
  rows: Accuracies


class OcclusionResults(NamedTuple):
  """What was found with one thing after the other hidden in every query.

  Attributes:
    mask: 'predicted' or 'given', where the parts lie.
    fill: 'mean', 'noise' or 'patch', what was seen there.
    seed: of noise and patches.
    plain: with nothing hidden.
    parts: {name of a part: found with it hidden}.
    bottom: {share of the rows: found with so much of the image hidden from below}.
  """

  mask: str
  fill: str
  seed: int
  plain: Accuracies
  parts: Mapping[str, Hidden]
  bottom: Mapping[float, Hidden]

  def to_json(self) -> dict[str, Any]:
    """Returns this for `metrics.json`."""
    parts, bottom = (
      {str(name): {"hidden_share": hidden.share, **hidden.rows} for name, hidden in found.items()}
      for found in (self.parts, self.bottom)
    )
    return {
      "mask": self.mask,
      "fill": self.fill,
      "seed": self.seed,
      "parts": parts,
      "bottom": bottom,
    }

  @classmethod
  def from_json(cls, metrics: Mapping[str, Any]) -> "OcclusionResults | None":
    """Reads this from the contents of `metrics.json`; None where nothing was hidden.

    Raises:
      KeyError, TypeError, ValueError, AttributeError: when it is not what `to_json` returns.
    """
    stored = metrics.get(OCCLUSION)
    if stored is None:
      return None
    found = [_hidden(stored["parts"]), _hidden(stored["bottom"])]
    rows = {row for hidden in found for one in hidden.values() for row in one.rows}
    plain = {
      row: {name: metrics[row][name] for name in PUBLISHED} for row in metrics if row in rows
    }
    parts, bottom = found
    by_share = {float(share): hidden for share, hidden in bottom.items()}
    return cls(stored["mask"], stored["fill"], stored["seed"], plain, parts, by_share)

  def conventions(self) -> str:
    """Returns what was hidden and how, in a sentence."""
    where = {"predicted": "as the network finds it", "given": "by the part labels"}[self.mask]
    seen = {"mean": "its mean colour", "noise": "noise", "patch": "pixels of another query"}
    return (
      f"One thing is hidden in every query, a part {where}, or the image from the bottom; in its "
      f"place is {seen[self.fill]} (seed {self.seed}). The gallery is whole."
    )

  def lines(self) -> list[tuple[str, float, Accuracies]]:
    """Returns what was hidden, its share of the pixels, and what was found; nothing comes first."""
    return [
      ("nothing", 0.0, self.plain),
      *((name, hidden.share, hidden.rows) for name, hidden in self.parts.items()),
      *(
        (f"bottom {share:.0%}", hidden.share, hidden.rows) for share, hidden in self.bottom.items()
      ),
    ]


def _hidden(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Hidden]:
  return {
    name: Hidden(
      values["hidden_share"],
      {row: dict(found) for row, found in values.items() if row != "hidden_share"},
    )
    for name, values in stored.items()
  }


def accuracies(results: Mapping[str, RankingMetrics]) -> Accuracies:
  """Returns the numbers of each row that papers give."""
  summaries = {row: metrics.summary() for row, metrics in results.items()}
  return {row: {name: found[name] for name in PUBLISHED} for row, found in summaries.items()}


def occlusion_table(results: OcclusionResults) -> str:
  """Returns a text table in percent: a line for each thing that is hidden, rows side by side."""
  heads = [f"{row} {HEADINGS[name]}" for name in PUBLISHED for row in results.plain]
  widths = [max(len(head), 5) + 2 for head in heads]
  lines = [
    f"{'hidden in the queries, %':<26}{'pixels':>8}"
    + "".join(f"{head:>{width}}" for head, width in zip(heads, widths))
  ]
  for name, share, rows in results.lines():
    values = [rows[row][metric] for metric in PUBLISHED for row in results.plain]
    cells = (f"{100 * value:{width}.1f}" for value, width in zip(values, widths))
    lines.append(f"{name:<26}{100 * share:8.1f}" + "".join(cells))
  return "\n".join([*lines, results.conventions()])
