"""Below which distance two images show one person: by false-accept rate, and calibrated on whom."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from magnifier_jax.errors import UserError
from magnifier_jax.evaluation.pair_distances import OperatingPoint
from magnifier_jax.evaluation.ranking import RankingMetrics

THRESHOLDS = "thresholds"  # the key in metrics.json
_BY_DATA_SET, _DEFAULT = "by_data_set", "default"
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


def of_several(by_data_set: Mapping[str, Any], default: str | None) -> dict[str, Any] | None:
  """Returns the thresholds of a network that was tested on any number of data sets.

  Args:
    by_data_set: {data set: what `Thresholds.to_json` returned}.
    default: the one that counts where nobody chooses; None for none.

  Returns:
    What `from_json` reads; None where there are none.
  """
  if len(by_data_set) < 2:
    return next(iter(by_data_set.values()), None)
  return {_BY_DATA_SET: dict(by_data_set), _DEFAULT: default}


def of_each(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """Returns the thresholds of each data set, of what `of_several` returned."""
  return list(content[_BY_DATA_SET].values()) if _BY_DATA_SET in content else [content]


def changed_in_each(
  content: Mapping[str, Any], change: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Mapping[str, Any]:
  """Returns what `of_several` returned, with the thresholds of each data set changed."""
  if _BY_DATA_SET not in content:
    return change(content)
  by_data_set = {name: change(found) for name, found in content[_BY_DATA_SET].items()}
  return {**content, _BY_DATA_SET: by_data_set}


def _chosen(content: Any, where: str, data_set: str | None) -> Any:
  """Returns the thresholds of one data set."""
  if _BY_DATA_SET in content:
    choices = content[_BY_DATA_SET]
    name = content[_DEFAULT] if data_set is None else data_set
    if name in choices:
      return choices[name]
    raise ThresholdError(
      f"{where}: calibrated_on: its thresholds were calibrated on {', '.join(choices)}; "
      + ("say on which they are to be" if data_set is None else f"there are none of {data_set}")
    )
  if data_set is not None and not content["calibrated_on"].startswith(f"{data_set}, "):
    raise ThresholdError(
      f"{where}: calibrated_on: its thresholds were calibrated on {content['calibrated_on']}; "
      f"there are none of {data_set}"
    )
  return content


def from_json(content: Any, where: str, data_set: str | None = None) -> Thresholds:
  """Reads what `Thresholds.to_json` or `of_several` returns.

  Args:
    content: of a JSON file.
    where: the file, for the message.
    data_set: that they are to be calibrated on; None for the only one, or the default.

  Raises:
    ThresholdError: when it is something else, or there are none of that data set.
  """
  try:
    content = _chosen(content, where, data_set)
    embeddings = [name for name, value in content.items() if isinstance(value, list)]
    return Thresholds(
      str(content["calibrated_on"]),
      bool(content["flip"]),
      {name: _points(content[name]) for name in embeddings},
    )
  except ThresholdError:
    raise
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ThresholdError(
      f"{where}: its thresholds are damaged; evaluate the network again"
    ) from error


def read_thresholds(folder: Path, step: int) -> tuple[str, Mapping[str, Any]] | None:
  """Returns the thresholds in a folder's `metrics.json`, as they stand there.

  Args:
    folder: of results: a workdir, or one of other data in it.
    step: of the checkpoint that they must be of.

  Returns:
    The data set, and what `from_json` reads; None where the checkpoint was not evaluated.

  Raises:
    ThresholdError: when the file is damaged.
  """
  path = folder / "metrics.json"
  try:
    metrics = json.loads(path.read_text(encoding="utf-8"))
    found = metrics.get(THRESHOLDS) if metrics.get("step") == step else None
    return None if found is None else (str(metrics.get("dataset", folder.name)), found)
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
