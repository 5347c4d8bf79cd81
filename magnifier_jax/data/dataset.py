"""Finds, prepares and opens a re-identification data set by its name in the config.

TensorFlow stays unimported here: records come as the encoded files that the user gave.
"""

import contextlib
import dataclasses
import functools
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from magnifier_jax.config import ConfigError, DataConfig
from magnifier_jax.data import validation_people
from magnifier_jax.data.datasets.cuhk03_np import Cuhk03Np
from magnifier_jax.data.datasets.dukemtmc import DukemtmcReid, OccludedDuke
from magnifier_jax.data.datasets.file_builder import FileReidBuilder
from magnifier_jax.data.datasets.image_list import ImageList
from magnifier_jax.data.datasets.market1501 import Market1501
from magnifier_jax.data.datasets.msmt17 import Msmt17
from magnifier_jax.data.datasets.synthetic_reid import SyntheticReid
from magnifier_jax.data.records import SPLITS, ReidBuilder, SourceMissingError, SplitIndex
from magnifier_jax.files.disk_space import full_disk_named
from magnifier_jax.files.whole_file import writing

BUILDERS = (Cuhk03Np, Market1501, DukemtmcReid, OccludedDuke, Msmt17, ImageList, SyntheticReid)


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
  path: tuple[str, ...]  # N relative file names
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
    rows = np.flatnonzero(keep)
    return ReidSplit(
      name,
      self.person_id[rows],
      self.camera_id[rows],
      tuple(self.path[row] for row in rows),
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
  """
  builder = prepare(config)
  if config.validation_people:
    train, query, gallery = _hold_back(_open_split(builder, "train"), config.validation_people)
  else:
    train, query, gallery = (_open_split(builder, split) for split in SPLITS)
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


def prepare(config: DataConfig) -> ReidBuilder:
  """Makes the prepared copy of a data set, unless one of the same source is there.

  Raises:
    ConfigError: when no data set has that name.
    SourceError: when the user's files are missing or damaged; the message names them.
    WriteError, DiskFullError: when the copy cannot be written.
  """
  builder = find_builder(config)
  manual_dir = Path(config.manual_dir).expanduser() if _reads_user_files(builder) else None
  prepared = builder.prepared_fingerprint()
  try:
    current = builder.fingerprint(manual_dir)
  except SourceMissingError as error:
    # A prepared copy may be all that a machine of a cluster has.
    if prepared is None:
      raise
    logging.warning("%s. Using the copy prepared before, in %s", error, builder.data_path)
    return builder
  if prepared != current:
    if prepared is not None:
      logging.warning(
        "The files of %s have changed since %s was prepared from them: preparing again",
        config.dataset,
        builder.data_path,
      )
    _prepare(builder, manual_dir, current)
    builder = find_builder(config)  # reads afresh what lies there now, whoever put it there
  return builder


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
  name, slash, variant = config.dataset.partition("/")
  builder = next((builder for builder in BUILDERS if builder.name == name), None)
  is_own = builder is ImageList
  known = builder is not None and (
    bool(variant) and "/" not in variant if is_own else not slash or variant in _variants(builder)
  )
  if not known:
    raise ConfigError(
      f"config.data.dataset: no data set is called {config.dataset!r}; choose from "
      f"{', '.join(known_datasets())}"
    )
  options = {"data_dir": os.path.expanduser(config.data_dir) or None}
  if issubclass(builder, FileReidBuilder):
    options["missing_part_labels"] = config.missing_part_labels
  options["folder" if is_own else "config"] = variant or None
  return builder(**options)


def _variants(builder: type[ReidBuilder]) -> list[str | None]:
  if builder is ImageList:
    return ["NAME"]
  return [config.name for config in builder.BUILDER_CONFIGS] or [None]


def _reads_user_files(builder: ReidBuilder) -> bool:
  return builder.MANUAL_DOWNLOAD_INSTRUCTIONS is not None


def _prepare(builder: ReidBuilder, manual_dir: Path | None, fingerprint: str) -> None:
  logging.info("Preparing %s in %s", builder.name, builder.data_path)
  # Nothing is ever downloaded; the modes differ in whether a copy that is there is replaced.
  modes = tfds.GenerateMode
  replace = builder.data_path.exists()
  download_config = tfds.download.DownloadConfig(
    manual_dir=manual_dir,
    download_mode=modes.REUSE_CACHE_IF_EXISTS if replace else modes.REUSE_DATASET_IF_EXISTS,
  )
  # TFDS's bars know no totals and its prints speak of downloads; the builder has its own bar.
  tfds.disable_progress_bar()
  try:
    with (
      contextlib.redirect_stdout(io.StringIO()),
      full_disk_named(builder.data_path, "No copy was prepared."),
    ):
      builder.download_and_prepare(download_config=download_config)
  except OSError:
    # Another process may have put the same copy there first; then it is as good.
    if builder.prepared_fingerprint() != fingerprint:
      with writing(builder.data_path, "set --config.data.data_dir to another folder"):
        raise
  finally:
    tfds.enable_progress_bar()


def _open_split(builder: ReidBuilder, split: str) -> ReidSplit:
  skip = tfds.decode.SkipDecoding()
  records = builder.as_data_source(split, decoders={"image": skip, "part_labels": skip})
  index = builder.read_index(split)
  return ReidSplit(split, index.person_id, index.camera_id, index.path, records)
