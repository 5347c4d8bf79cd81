"""Below which distance two images show one person: by false-accept rate, and calibrated on whom."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from magnifier_jax.errors import UserError
from magnifier_jax.evaluation.pair_distances import OperatingPoint
from magnifier_jax.evaluation.ranking import RankingMetrics

THRESHOLDS = "thresholds"  # the key in metrics.json
WHOLE = "whole"  # the embedding of all branches; beside it a branch has its own name


class ThresholdError(UserError):
  """There is no threshold for what was asked."""


class Thresholds(NamedTuple):
  """The operating points of a network.

  Distances are squared Euclidean, between L2-normalised embeddings.

  Attributes:
    calibrated_on: data set, people, and numbers of genuine and impostor pairs, for people to read.
    flip: whether the mirrored image was added; without it distances are others.
    points: {'whole' or a branch: its operating points}.
  """

  calibrated_on: str
  flip: bool
  points: Mapping[str, tuple[OperatingPoint, ...]]

  def at(self, false_accept_rate: float, embedding: str = WHOLE) -> OperatingPoint:
    """Returns the operating point of a false-accept rate.

    Args:
      false_accept_rate: one that was calibrated.
      embedding: 'whole' or a branch.

    Raises:
      ThresholdError: names the rates that there are.
    """
    points = self.points.get(embedding, ())
    for point in points:
      if point.false_accept_rate == false_accept_rate:
        return point
    known = ", ".join(f"{point.false_accept_rate:g}" for point in points) or "none"
    raise ThresholdError(
      f"far={false_accept_rate:g}: no threshold was calibrated for this false-accept rate; there "
      f"are {known}, calibrated on {self.calibrated_on}"
    )

  def to_json(self) -> dict[str, Any]:
    """Returns what `metrics.json` has of them."""
    return {
      "calibrated_on": self.calibrated_on,
      "flip": self.flip,
      **{
        name: [
          {
            "false_accept_rate": point.false_accept_rate,
            "distance": point.distance_threshold,
            "true_accept_rate": point.true_accept_rate,
          }
          for point in points
        ]
        for name, points in self.points.items()
      },
    }


def calibrated(
  people: str, flip: bool, whole: RankingMetrics, branches: Mapping[str, RankingMetrics]
) -> Thresholds | None:
  """Returns the thresholds that an evaluation found; None without impostor pairs.

  Args:
    people: whom it was measured on: a data set, and which of its people.
    flip: whether the mirrored image was added.
    whole: accuracies of the whole embedding.
    branches: {branch: accuracies}.
  """
  if not whole.operating_points:
    return None
  genuine, impostor = (int(counts.sum()) for counts in whole.pair_distances[1:])
  return Thresholds(
    f"{people}: {genuine:,} genuine and {impostor:,} impostor pairs",
    flip,
    {name: metrics.operating_points for name, metrics in {WHOLE: whole, **branches}.items()},
  )


def from_json(content: Any, where: str) -> Thresholds:
  """Reads what `Thresholds.to_json` returns.

  Args:
    content: of a JSON file.
    where: the file, for the message.

  Raises:
    ThresholdError: when it is something else.
  """
  try:
    embeddings = [name for name, value in content.items() if isinstance(value, list)]
    return Thresholds(
      str(content["calibrated_on"]),
      bool(content["flip"]),
      {name: _points(content[name]) for name in embeddings},
    )
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ThresholdError(
      f"{where}: its thresholds are damaged; evaluate the network again"
    ) from error


def read_thresholds(workdir: Path, step: int) -> Mapping[str, Any] | None:
  """Returns the thresholds in a workdir's `metrics.json`, as they stand there.

  Args:
    workdir: of a run.
    step: of the checkpoint that they must be of.

  Returns:
    What `from_json` reads; None where the checkpoint was not evaluated.

  Raises:
    ThresholdError: when the file is damaged.
  """
  path = workdir / "metrics.json"
  try:
    metrics = json.loads(path.read_text(encoding="utf-8"))
    return metrics.get(THRESHOLDS) if metrics.get("step") == step else None
  except FileNotFoundError:
    return None
  except (OSError, ValueError, AttributeError) as error:
    raise ThresholdError(f"{path}: cannot be read ({error}); evaluate the network again") from error


def _points(rows: Sequence[Mapping[str, Any]]) -> tuple[OperatingPoint, ...]:
  return tuple(
    OperatingPoint(
      false_accept_rate=float(row["false_accept_rate"]),
      true_accept_rate=float(row["true_accept_rate"]),
      distance_threshold=float(row["distance"]),
    )
    for row in rows
  )
