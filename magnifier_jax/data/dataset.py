"""Finds, prepares and opens a re-identification data set by its name in the config.

TensorFlow stays unimported here: records come as the encoded files that the user gave.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from magnifier_jax.config import ConfigError, DataConfig
from magnifier_jax.data import preparing, validation_people
from magnifier_jax.data.datasets.cuhk03_np import Cuhk03Np
from magnifier_jax.data.datasets.dukemtmc import DukemtmcReid, OccludedDuke
from magnifier_jax.data.datasets.file_builder import FileReidBuilder
from magnifier_jax.data.datasets.image_list import ImageList
from magnifier_jax.data.datasets.market1501 import Market1501
from magnifier_jax.data.datasets.msmt17 import Msmt17
from magnifier_jax.data.datasets.reid_builder import ReidBuilder
from magnifier_jax.data.datasets.synthetic_reid import SyntheticReid
from magnifier_jax.data.prepared import record_files
from magnifier_jax.data.prepared.copies import PreparedCopy
from magnifier_jax.data.prepared.path_column import PathColumn
from magnifier_jax.data.records import SPLITS, SplitIndex
from magnifier_jax.files.user_path import user_path

BUILDERS = (Cuhk03Np, Market1501, DukemtmcReid, OccludedDuke, Msmt17, ImageList, SyntheticReid)


_NAMED_UNUSED = 5  # kinds of files, in the log


class EncodedImage(NamedTuple):
  """The files of one record."""

  image: bytes  # JPEG or PNG
  part_labels: bytes  # PNG, one channel, the image's size, values 0…7


@dataclasses.dataclass(frozen=True)
class ReidSplit:
  """One split, with access to record i. The order of records is fixed by the source."""

  name: str  # train, query or gallery
  person_id: np.ndarray  # (N,) int32; 0…people-1 in train, as named in the source elsewhere
  camera_id: np.ndarray  # (N,) int32, as named in the source
  path: PathColumn  # N relative file names
  records: Sequence[dict[str, Any]]

  def __len__(self) -> int:
    """Returns the number of images."""
    return len(self.person_id)

  @functools.cached_property
  def num_people(self) -> int:
    """The number of different person ids."""
    return len(np.unique(self.person_id))

  def encoded(self, index: int) -> EncodedImage:
    """Returns the files of record `index`."""
    record = self.records[int(index)]
    return EncodedImage(record["image"], record["part_labels"])

  def subset(self, name: str, keep: np.ndarray) -> "ReidSplit":
    """Returns some of the records as a split; `keep`: (N,) bool."""
    return self.take(name, np.flatnonzero(keep))

  def take(self, name: str, rows: np.ndarray) -> "ReidSplit":
    """Returns records as a split, in another order too; `rows`: (M,) integers."""
    return ReidSplit(
      name,
      self.person_id[rows],
      self.camera_id[rows],
      self.path.take(rows),
      _Rows(self.records, rows),
    )


class _Rows(Sequence[dict[str, Any]]):
  """Some of the records of a split."""

  def __init__(self, records: Sequence[dict[str, Any]], rows: np.ndarray):
    self._records = records
    self._rows = rows

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._records[int(self._rows[index])]


class _CopyRecords(Sequence[dict[str, Any]]):
  """The records of a prepared split; while they are referred to, nobody removes the copy."""

  def __init__(self, copy: PreparedCopy, split: str):
    self._copy = copy
    self._records = record_files.read_records(copy.folder, split)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._records[index]


class ReidDataset(NamedTuple):
  """A data set, opened."""

  name: str  # as in the config
  train: ReidSplit
  query: ReidSplit
  gallery: ReidSplit
  train_person_ids: np.ndarray  # (people,) int64: the source's name of each training id


def load(config: DataConfig) -> ReidDataset:
  """Opens the data set that `config.dataset` names, preparing it first where needed.

  Args:
    config: reads `dataset`, `manual_dir`, `data_dir`, `missing_part_labels` and
      `validation_people`. With the last, people of training take the place of the test people.

  Raises:
    ConfigError: when no data set has that name, or too few people can be held back.
    SourceError: when the user's files are missing or damaged; the message names them.
    PreparedCopyError: as `prepare`.
  """
  copy = prepare(config)
  if config.validation_people:
    train, query, gallery = _hold_back(_open_split(copy, "train"), config.validation_people)
  else:
    train, query, gallery = (_open_split(copy, split) for split in SPLITS)
  train_person_ids, person_id = np.unique(train.person_id, return_inverse=True)
  return ReidDataset(
    name=config.dataset,
    train=dataclasses.replace(train, person_id=person_id.astype(np.int32)),
    query=query,
    gallery=gallery,
    train_person_ids=train_person_ids.astype(np.int64),
  )


def _hold_back(train: ReidSplit, people: int) -> tuple[ReidSplit, ReidSplit, ReidSplit]:
  """Divides the training split into training, query and gallery, of different people."""
  index = SplitIndex(train.person_id, train.camera_id, train.path)
  is_held_back = np.isin(train.person_id, validation_people.held_back(index, people))
  validation = train.subset("validation", is_held_back)
  is_query = validation_people.query_rows(validation.person_id, validation.camera_id)
  return (
    train.subset("train", ~is_held_back),
    validation.subset("query", is_query),
    validation.subset("gallery", ~is_query),
  )


def prepare(config: DataConfig) -> PreparedCopy:
  """Makes the prepared copy of a data set, unless one of the same contents is there.

  Raises:
    ConfigError: when no data set has that name.
    SourceError: when the user's files are missing or damaged; the message names them.
    PreparedCopyError: when a copy is damaged or cannot be written, or when the files are not there
      and several copies are.
  """
  builder = find_builder(config)
  copy = preparing.prepare(builder, _manual_dir(config, builder))
  _say_what_is_unused(config.dataset, builder)
  return copy


def open_last_used(config: DataConfig, split: str) -> ReidSplit | None:
  """Opens a split of the prepared copy that was used last; nothing is prepared or looked for.

  Args:
    config: reads `dataset`, `manual_dir`, `data_dir` and `missing_part_labels`.
    split: train, query or gallery, as prepared.

  Returns:
    The split; None when there is no copy any more.

  Raises:
    ConfigError: when no data set has that name.
    PreparedCopyError: when the copy is damaged.
  """
  builder = find_builder(config)
  copy = preparing.last_used(builder, _manual_dir(config, builder))
  return None if copy is None else _open_split(copy, split)


def _manual_dir(config: DataConfig, builder: ReidBuilder) -> Path | None:
  """Returns the user's folder; None for a data set that reads nothing of the user's."""
  reads_user_files = builder.MANUAL_DOWNLOAD_INSTRUCTIONS is not None
  return user_path(config.manual_dir) if reads_user_files else None


def _say_what_is_unused(name: str, builder: ReidBuilder) -> None:
  """Logs in one line what lies among the images of a data set and was not taken for one."""
  if not isinstance(builder, FileReidBuilder):
    return
  unused = [str(item) for items in builder.unused.values() for item in items]
  if unused:
    more = f"; and {len(unused) - _NAMED_UNUSED} other kinds" * (len(unused) > _NAMED_UNUSED)
    logging.warning(
      "%s: not all files are used, see tools.check_data: %s%s",
      name,
      "; ".join(unused[:_NAMED_UNUSED]),
      more,
    )


def known_datasets() -> list[str]:
  """Returns every name that `config.data.dataset` may have; NAME is a folder of the user's."""
  return [
    f"{builder.name}/{variant}" if variant else builder.name
    for builder in BUILDERS
    for variant in _variants(builder)
  ]


def find_builder(config: DataConfig) -> ReidBuilder:
  """Returns the builder of the data set that the config names, without preparing anything.

  Raises:
    ConfigError: when no data set has that name.
  """
  if not isinstance(config.dataset, str):
    raise ConfigError(
      f"config.data.dataset: several data sets, {', '.join(config.dataset)}; name one of them "
      f"here, as --config.data.dataset={config.dataset[0]}"
    )
  name, slash, variant = config.dataset.partition("/")
  builder = next((builder for builder in BUILDERS if builder.name == name), None)
  is_own = builder is ImageList
  known = builder is not None and (
    _is_folder_name(variant) if is_own else not slash or variant in _variants(builder)
  )
  if not known:
    raise ConfigError(
      f"config.data.dataset: no data set is called {config.dataset!r}; choose from "
      f"{', '.join(known_datasets())}"
    )
  options = {"data_dir": str(user_path(config.data_dir)) if config.data_dir else None}
  if issubclass(builder, FileReidBuilder):
    options["missing_part_labels"] = config.missing_part_labels
  options["folder" if is_own else "config"] = variant or None
  return builder(**options)


def _is_folder_name(name: str) -> bool:
  return name not in ("", ".", "..") and "/" not in name


def _variants(builder: type[ReidBuilder]) -> list[str | None]:
  if builder is ImageList:
    return ["NAME"]
  return [config.name for config in builder.BUILDER_CONFIGS] or [None]


def _open_split(copy: PreparedCopy, split: str) -> ReidSplit:
  index = record_files.read_index(copy.folder, split)
  records = _CopyRecords(copy, split)
  return ReidSplit(split, index.person_id, index.camera_id, index.path, records)
