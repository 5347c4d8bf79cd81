"""The files of a prepared copy's records: ArrayRecord with TFDS's metadata, and an index.

`tfds.builder_from_directory` opens such a folder too.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from magnifier_jax.data.prepared.path_column import PathColumn
from magnifier_jax.data.records import Record, SourceError, SplitIndex

# One record a group gives access to single records. JPEG and PNG do not get smaller by compressing
# them once more: it costs 0.05 ms a record, writing and again reading, for 4 % of the size.
_WRITER_OPTIONS = "group_size:1,uncompressed"
_SHARD_BYTES = 256 << 20
_INDEX_FILE = "index_{split}.npz"


class EncodedRecord(NamedTuple):
  """A record as it is stored."""

  example: bytes  # of `encode`
  person_id: int
  camera_id: int
  path: str


def encode(record: Record) -> EncodedRecord:
  """Returns a record as the `tf.train.Example` that TFDS reads."""
  example = tf_example_pb2.Example()
  feature = example.features.feature
  feature["image"].bytes_list.value.append(record.image)
  feature["part_labels"].bytes_list.value.append(record.part_labels)
  feature["person_id"].int64_list.value.append(record.person_id)
  feature["camera_id"].int64_list.value.append(record.camera_id)
  feature["path"].bytes_list.value.append(os.fsencode(record.path))
  encoded = example.SerializeToString()
  return EncodedRecord(encoded, record.person_id, record.camera_id, record.path)


def write_split(
  folder: Path, dataset_name: str, split: str, records: Iterable[EncodedRecord]
) -> tfds.core.SplitInfo:
  """Writes the records of a split, in their order, and their index.

  Args:
    folder: of the copy.
    dataset_name: the builder's.
    split: name of the split.
    records: of the split; at least one.

  Returns:
    What TFDS's metadata say about the split.

  Raises:
    SourceError: when two records have one path.
    OSError: when the disk is full, or the folder cannot be written to.
  """
  shards = _ShardWriter(folder, split)
  columns = [], [], []
  try:
    for example, *row in records:
      shards.write(example)
      for column, value in zip(columns, row):
        column.append(value)
  finally:
    shards.close()
  person_id, camera_id, path = columns
  _check_unique(split, path)
  _write_index(folder, split, person_id, camera_id, PathColumn.of(path))
  template = tfds.core.ShardedFileTemplate(
    data_dir=folder, dataset_name=dataset_name, split=split, filetype_suffix="array_record"
  )
  for number, file in enumerate(shards.files):
    file.rename(template.sharded_filepath(shard_index=number, num_shards=len(shards.files)))
  return tfds.core.SplitInfo(
    name=split,
    shard_lengths=shards.lengths,
    num_bytes=shards.num_bytes,
    filename_template=template,
  )


def read_index(folder: Path, split: str) -> SplitIndex:
  """Reads the identities, cameras and paths of a prepared split, without its images."""
  with np.load(folder / _INDEX_FILE.format(split=split)) as columns:
    ends = columns["path_ends"]
    starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    path = PathColumn(columns["path"], starts, ends)
    return SplitIndex(columns["person_id"], columns["camera_id"], path)


def read_records(folder: Path, split: str) -> Sequence[dict[str, Any]]:
  """Opens the records of a prepared split; images stay encoded."""
  skip = tfds.decode.SkipDecoding()
  builder = tfds.builder_from_directory(folder)
  return builder.as_data_source(split, decoders={"image": skip, "part_labels": skip})


def _write_index(
  folder: Path,
  split: str,
  person_id: Sequence[int],
  camera_id: Sequence[int],
  path: PathColumn,
) -> None:
  np.savez(
    folder / _INDEX_FILE.format(split=split),
    person_id=np.array(person_id, np.int32),
    camera_id=np.array(camera_id, np.int32),
    path=path.encoded,
    path_ends=path.ends,
  )


class _ShardWriter:
  """Writes records into files of about equal size.

  Attributes:
    files: those written so far.
    lengths: records in each.
    num_bytes: of all records.
  """

  def __init__(self, folder: Path, split: str):
    self._folder = folder
    self._split = split
    self._writer = None
    self._left = 0  # bytes that the open file still takes
    self.files: list[Path] = []
    self.lengths: list[int] = []
    self.num_bytes = 0

  def write(self, record: bytes) -> None:
    if self._left <= 0:
      self.close()
      file = self._folder / f"{self._split}-{len(self.files)}.writing"
      self._writer = array_record_module.ArrayRecordWriter(str(file), _WRITER_OPTIONS)
      self.files.append(file)
      self.lengths.append(0)
      self._left = _SHARD_BYTES
    self._writer.write(record)
    self.lengths[-1] += 1
    self.num_bytes += len(record)
    self._left -= len(record)

  def close(self) -> None:
    if self._writer is None:
      return
    writer, self._writer = self._writer, None
    try:
      writer.close()
    except RuntimeError as error:  # a full disk shows only here
      raise OSError(str(error)) from error


def _check_unique(split: str, paths: Sequence[str]) -> None:
  seen = set(paths)
  if len(seen) == len(paths):
    return
  for path in paths:
    if path not in seen:
      raise SourceError(f"{path}: listed twice in the split {split}; list it once")
    seen.remove(path)
