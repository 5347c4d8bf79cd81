"""Published accuracies, from `configs/published.toml`, and which of them a run stands beside."""

import functools
import tomllib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from magnifier_jax.config import ConfigError
from magnifier_jax.evaluation.protocol import CROSS_CAMERA
from magnifier_jax.files.own_configs import configs_folder

_FILE = "published.toml"


class PublishedResult(NamedTuple):
  """A published accuracy, in percent."""

  rank1: float
  mAP: float


class PublishedTable(NamedTuple):
  """What was published on a data set.

  Attributes:
    rows: {name: accuracy}; empty when there are none that measure the same.
    source: where they stand; of an empty table, why it is empty.
  """

  rows: Mapping[str, PublishedResult]
  source: str


NOTHING_PUBLISHED = PublishedTable({}, "")


class ReferenceRow(NamedTuple):
  """A row of the authors' ablation table, each of which adds something to the network."""

  variant: str  # of the files in `configs/`
  published: str  # name in the published table; '' where the authors give no numbers
  adversarial_branch: bool
  fusion_branch: bool
  part_segmentation: bool
  diversity: bool


# From the weakest to the best.
REFERENCE_ROWS = (
  ReferenceRow("baseline", "baseline", False, False, False, False),
  ReferenceRow("part_segmentation", "+ part segmentation", False, False, True, False),
  ReferenceRow("adversarial", "+ semantic adversarial branch", True, False, True, False),
  ReferenceRow(
    "fusion", "+ semantic fusion branch, without the adversarial one", False, True, True, False
  ),
  ReferenceRow("no_diversity", "", True, True, True, False),
  ReferenceRow("all", "all", True, True, True, True),
)


def joined_names(datasets: str | Sequence[str]) -> str:
  """Returns one data set's name as it is, several with a plus between them."""
  return datasets if isinstance(datasets, str) else " + ".join(datasets)


def published_table(
  dataset: str,
  validation_people: int = 0,
  trained_on: str | Sequence[str] | None = None,
  camera_rule: str = CROSS_CAMERA,
) -> PublishedTable:
  """Returns the published accuracies that may stand beside those of a run.

  Args:
    dataset: that the run was measured on, as `config.data.dataset` names it.
    validation_people: on whom the run was measured; 0 for the test people, whom alone published
      numbers are of.
    trained_on: the data set that the run was trained on, or all of them; None: the same one.
    camera_rule: that the run was measured by; published numbers are of `CROSS_CAMERA`.

  Raises:
    ConfigError: when the file of published numbers is missing or damaged.
  """
  if validation_people:
    return PublishedTable({}, "published numbers are of the test people, these are not")
  if camera_rule != CROSS_CAMERA:
    return PublishedTable({}, f"published numbers are of camera_rule={CROSS_CAMERA}, these are not")
  key = dataset
  if trained_on not in (None, dataset):
    key = f"{joined_names(trained_on)} -> {dataset}"
  return _tables().get(key, PublishedTable({}, f"none are known for {key}"))


@functools.cache
def _tables() -> Mapping[str, PublishedTable]:
  path = configs_folder() / _FILE
  try:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return MappingProxyType(
      {
        dataset: PublishedTable(
          {name: _result(row) for name, row in table["rows"].items()}, table["source"]
        )
        for dataset, table in content.items()
      }
    )
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ConfigError(f"{path}: not a file of published numbers ({error!r})") from error


def _result(row: Mapping[str, float]) -> PublishedResult:
  return PublishedResult(rank1=float(row["rank1"]), mAP=float(row["mAP"]))


def reference_row(config: Mapping[str, Any]) -> ReferenceRow | None:
  """Returns the row of the authors' table that a run corresponds to, whatever its size.

  Args:
    config: nested, as `Config.to_dict` returns it or a checkpoint stores it.

  Returns:
    None for a network that the table does not have.
  """
  model, loss = config["model"], config["loss"]
  if not model["global_branch"]:
    return None
  diversity = (
    model["fusion_branch"]
    and loss["diversity_weight"] > 0
    and loss["diversity_start_epoch"] <= config["training"]["num_epochs"]
  )
  switches = (
    model["adversarial_branch"],
    model["fusion_branch"],
    model["part_segmentation"],
    diversity,
  )
  return next((row for row in REFERENCE_ROWS if row[2:] == switches), None)


def published_row(config: Mapping[str, Any], results: str, table: PublishedTable) -> str:
  """Returns the name of the published row that measures the same as a row of a run's results.

  Args:
    config: nested, as `Config.to_dict` returns it or a checkpoint stores it.
    results: 'all' for the whole embedding, 'all, re-ranked', or a branch.
    table: what was published on the people that the run was measured on.

  Returns:
    '' where nothing like it was published.
  """
  row = reference_row(config)
  if row is None or not row.published:
    return ""
  name = {"all": row.published, "all, re-ranked": f"{row.published}, re-ranked"}.get(results, "")
  return name if name in table.rows else ""
