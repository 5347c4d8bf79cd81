"""What a report shows: plain numbers, arrays and small pictures, checked as they are put together.

No file handles, models or data sets: whoever evaluates fills these in, and `report` writes them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.errors import UserError
from magnifier_jax.evaluation.occlusion_results import OcclusionResults
from magnifier_jax.evaluation.pair_distances import OperatingPoint, PairDistances
from magnifier_jax.evaluation.protocol import CROSS_CAMERA, rule_in_words
from magnifier_jax.report.published import NOTHING_PUBLISHED, PublishedTable


class ReportError(UserError):
  """A report cannot be made of what was given; the message starts with the field's name."""


@dataclasses.dataclass(frozen=True)
class ResultRow:
  """One row of the metric table, e.g. a branch, or all of them re-ranked.

  Attributes:
    name: the row's heading.
    summary: {metric: fraction}, named as in `metric_names.HEADINGS`; others are not shown, absent
      ones are shown as a dash.
    cmc: [max_rank] float, fraction of queries whose first match is at that rank or before.
    published: the row of the published table that measures the same; '' where there is none.
  """

  name: str
  summary: Mapping[str, float]
  cmc: np.ndarray | None = None
  published: str = ""

  def __post_init__(self):
    if self.cmc is not None and (np.ndim(self.cmc) != 1 or len(self.cmc) == 0):
      raise ReportError(
        f"results[{self.name!r}].cmc: must be of shape [max_rank], got {np.shape(self.cmc)}"
      )


@dataclasses.dataclass(frozen=True)
class RetrievedImage:
  """One gallery image in a query's ranked list; `image` is [H, W, 3] uint8 RGB."""

  image: np.ndarray
  person_id: int
  camera_id: int
  distance: float
  correct: bool

  def __post_init__(self):
    _check_image("queries[…].results[…].image", self.image)


@dataclasses.dataclass(frozen=True)
class QueryCase:
  """A query worth looking at, with the head of its ranked list, nearest first."""

  kind: Literal["best", "median", "worst"]
  average_precision: float
  image: np.ndarray  # [H, W, 3] uint8 RGB
  person_id: int
  camera_id: int
  results: tuple[RetrievedImage, ...]

  def __post_init__(self):
    _check_image("queries[…].image", self.image)
    if self.kind not in ("best", "median", "worst"):
      raise ReportError(f"queries[…].kind: must be best, median or worst, got {self.kind!r}")


@dataclasses.dataclass(frozen=True)
class PartOverlay:
  """A picture and the parts found on it, on any grid; [h, w] uint8, 0…7."""

  image: np.ndarray  # [H, W, 3] uint8 RGB
  predicted: np.ndarray
  labelled: np.ndarray | None = None

  def __post_init__(self):
    _check_image("overlays[…].image", self.image)
    _check_parts("overlays[…].predicted", self.predicted)
    if self.labelled is not None:
      _check_parts("overlays[…].labelled", self.labelled)


@dataclasses.dataclass(frozen=True)
class ReportData:
  """Everything in a report. Whatever is left empty is left out, or said to be missing.

  Attributes:
    title: the page's heading.
    facts: what the run was: config, step, epoch, seed, switches that differ from the reference
      code, versions, devices, date, command. A value may have several lines.
    results: the metric table; the first row gives the headline numbers.
    num_queries: queries that the means are over.
    num_skipped_queries: queries left out because the gallery has no valid match.
    num_gallery: gallery images searched.
    published: what was published on the same people.
    rule: what a query is compared with, a sentence.
    notes: what a reader must know of the numbers, a sentence each.
    distances: genuine and impostor pairs.
    operating_points: thresholds at given false-accept rates.
    training_log: the records of `metrics.jsonl`: 'step', perhaps 'epoch', and any of 'loss/TERM',
      'loss/TERM/PART', 'learning_rate', 'eval/mAP', 'eval/rank1' (fractions).
    queries: the best, median and worst queries.
    overlays: predicted parts of some queries.
    occlusion: accuracies with something hidden in the queries.
  """

  title: str
  facts: Mapping[str, str]
  results: tuple[ResultRow, ...]
  num_queries: int
  num_skipped_queries: int
  num_gallery: int
  published: PublishedTable = NOTHING_PUBLISHED
  rule: str = rule_in_words(CROSS_CAMERA, 0)
  notes: tuple[str, ...] = ()
  distances: PairDistances | None = None
  operating_points: tuple[OperatingPoint, ...] = ()
  training_log: Sequence[Mapping[str, float]] = ()
  queries: tuple[QueryCase, ...] = ()
  overlays: tuple[PartOverlay, ...] = ()
  occlusion: OcclusionResults | None = None

  def __post_init__(self):
    if not self.results:
      raise ReportError("results: empty; a report needs at least one row of metrics")
    for name, value in self.facts.items():
      if not isinstance(value, str):
        raise ReportError(f"facts[{name!r}]: must be a string, got {value!r}")
    for row in self.results:
      if row.published and row.published not in self.published.rows:
        raise ReportError(
          f"results[{row.name!r}].published: {row.published!r} is no published row; "
          f"there are {', '.join(map(repr, self.published.rows)) or 'none'}"
        )
    for line, record in enumerate(self.training_log, start=1):
      if "step" not in record:
        raise ReportError(f"training_log: record {line} has no 'step'; got {sorted(record)}")


def _check_image(field: str, image: np.ndarray) -> None:
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
    raise ReportError(
      f"{field}: must be uint8 of shape [H, W, 3], got {image.dtype} of shape {image.shape}"
    )


def _check_parts(field: str, parts: np.ndarray) -> None:
  if parts.dtype != np.uint8 or parts.ndim != 2 or parts.size == 0:
    raise ReportError(
      f"{field}: must be uint8 of shape [h, w], got {parts.dtype} of shape {parts.shape}"
    )
  if parts.max() >= NUM_PARTS:
    raise ReportError(f"{field}: parts are numbered 0…{NUM_PARTS - 1}, got {parts.max()}")
