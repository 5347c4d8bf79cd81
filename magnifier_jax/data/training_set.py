"""What is trained on: the training split of a data set, or those of several as one."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from magnifier_jax.data.dataset import ReidDataset, ReidSplit
from magnifier_jax.data.records import NO_CAMERA_ID, SourceError


class DatasetCounts(NamedTuple):
  """How much of a data set is trained on."""

  name: str
  images: int
  people: int
  cameras: int  # known ones

  def __str__(self) -> str:
    cameras = f"from {self.cameras} cameras" if self.cameras else "from unknown cameras"
    return f"{self.name}: {self.images:,} images of {self.people:,} people {cameras}"


class TrainingSet(NamedTuple):
  """The training images of one data set or several, whose people and cameras are kept apart."""

  train: ReidSplit
  dataset_of_person: np.ndarray  # (people,) int32, index of a person's data set, ascending
  counts: tuple[DatasetCounts, ...]  # of each data set


def training_set(datasets: Sequence[ReidDataset]) -> TrainingSet:
  """Puts the training splits of data sets together, in their order.

  The people of a data set follow those of the one before, and so do its cameras: person 7 of two
  data sets is two people.

  Raises:
    SourceError: when one has no training images.
  """
  for dataset in datasets:
    if not len(dataset.train):
      raise SourceError(
        f"{dataset.name}: no image to train on; leave it out of config.data.dataset, or give it "
        "training images"
      )
  splits = [dataset.train for dataset in datasets]
  people = [split.num_people for split in splits]
  train = splits[0] if len(splits) == 1 else _joined(splits, [data.name for data in datasets])
  return TrainingSet(
    train,
    np.repeat(np.arange(len(people), dtype=np.int32), people),
    tuple(_count(dataset) for dataset in datasets),
  )


def _count(dataset: ReidDataset) -> DatasetCounts:
  cameras = np.unique(dataset.train.camera_id)
  known = np.count_nonzero(cameras != NO_CAMERA_ID)
  return DatasetCounts(dataset.name, len(dataset.train), dataset.train.num_people, int(known))


def _joined(splits: Sequence[ReidSplit], names: Sequence[str]) -> ReidSplit:
  first_person = first_camera = 0
  people, cameras = [], []
  for split in splits:
    people.append(split.person_id + first_person)
    first_person += split.num_people
    known, camera = np.unique(split.camera_id, return_inverse=True)
    cameras.append(np.where(split.camera_id == NO_CAMERA_ID, NO_CAMERA_ID, camera + first_camera))
    first_camera += len(known)
  paths = [_Paths(name, split.path) for name, split in zip(names, splits, strict=True)]
  return ReidSplit(
    "train",
    np.concatenate(people).astype(np.int32),
    np.concatenate(cameras).astype(np.int32),
    _Chain(paths),
    _Chain([split.records for split in splits]),
  )


class _Chain(Sequence[Any]):
  """Sequences one behind the other, without a copy."""

  def __init__(self, parts: Sequence[Sequence[Any]]):
    self._parts = parts
    self._ends = list(itertools.accumulate(map(len, parts)))

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, index: int) -> Any:
    part = int(np.searchsorted(self._ends, index, side="right"))
    return self._parts[part][index - (self._ends[part - 1] if part else 0)]


class _Paths(Sequence[str]):
  """The paths of a data set, with its name before them."""

  def __init__(self, name: str, paths: Sequence[str]):
    self._name, self._paths = name, paths

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> str:
    return f"{self._name}: {self._paths[index]}"
