"""Batches for training and evaluation, as numpy arrays.

Training batch n depends on nothing but (seed, n): resuming at n, or making some rows of it on
another process, gives the same pixels.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.config import Config, ConfigError, DataConfig
from magnifier_jax.data import image_ops
from magnifier_jax.data.augmentation import Augmentation, draw_augmentation
from magnifier_jax.data.batch_iterator import BatchIterator, Columns
from magnifier_jax.data.dataset import EncodedImage, ReidDataset, ReidSplit
from magnifier_jax.data.dataset_mixing import Sampler, make_sampler
from magnifier_jax.data.occlusion import draw_kept_parts, keep_mask
from magnifier_jax.data.random_streams import Purpose, generator
from magnifier_jax.data.records import SourceError
from magnifier_jax.data.tensorflow_on_cpu import tf
from magnifier_jax.data.training_set import TrainingSet
from magnifier_jax.train_state import Batch


class EvaluationBatch(NamedTuple):
  """An evaluation batch, or one process's rows of it. Rows with mask 0 are padding."""

  image: np.ndarray  # (B, H, W, 3) uint8; black on padding
  index: np.ndarray  # (B,) int32, of the record in its split; -1 on padding
  mask: np.ndarray  # (B,) uint8, 0 on padding


class _TrainPlan(NamedTuple):
  """Every choice of one batch, before a pixel is read."""

  index: np.ndarray  # (B,) int64, records of the training split
  augmentation: Augmentation
  kept_parts: np.ndarray  # (B, 8) uint8

  def rows(self, rows: slice) -> "_TrainPlan":
    return _TrainPlan(self.index[rows], self.augmentation.rows(rows), self.kept_parts[rows])


def train_sampler(training: ReidDataset | TrainingSet, config: Config) -> Sampler:
  """Returns the sampler of a run, whose `notes` are worth logging once.

  Raises:
    ConfigError: when there are fewer people than a batch wants.
  """
  train = training.train
  groups = np.zeros(train.num_people, np.int32)
  if isinstance(training, TrainingSet):
    groups = training.dataset_of_person
  return make_sampler(train.person_id, groups, config.data, config.seed)


def train_batches(
  training: ReidDataset | TrainingSet,
  config: Config,
  start_step: int = 0,
  stop_step: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Batch]:
  """Makes the training batches of a range of updates.

  Args:
    training: opened by `dataset.load`, or several such data sets as one.
    config: of the run; its seed decides every batch.
    start_step: of the first batch; the first update of a run is 0.
    stop_step: one past the last; None goes on without end.
    process_index: which of `process_count` equal slices of the global batch, P × K images, to make.
    process_count: processes that share the global batch.

  Returns:
    An iterator that works ahead. It raises `SourceError` where a record cannot be read.

  Raises:
    ConfigError: when the processes do not divide the batch, or there are too few people.
  """
  field = "config.data.identities_per_batch × images_per_identity"
  rows = _process_rows(config.data.batch_size, process_index, process_count, field)
  sampler = train_sampler(training, config)

  def plan(batch: int) -> _TrainPlan:
    return _plan(start_step + batch, sampler, config).rows(rows)

  return BatchIterator(
    lambda batch: _load_train_rows(training.train, plan(batch)),
    None if stop_step is None else stop_step - start_step,
    _TRAIN_ROW,
    functools.partial(_make_train_row, config.data),
    _make_train_batch,
    lambda batch: _find_fault(training.train, plan(batch).index),
    rows.stop - rows.start,
    config.data.num_workers,
  )


def evaluation_batches(
  split: ReidSplit, config: Config, process_index: int = 0, process_count: int = 1
) -> Iterator[EvaluationBatch]:
  """Makes the batches of one pass over a split: every image once, in the order of its records.

  Args:
    split: of an opened data set.
    config: reads `evaluation.batch_size`, the rows of all processes together, and `data`.
    process_index: which of `process_count` equal slices of each batch to make.
    process_count: processes that share a batch.

  Returns:
    An iterator of ⌈N / batch size⌉ batches, the last one padded, that works ahead. It raises
    `SourceError` where a record cannot be read.

  Raises:
    ConfigError: when the processes do not divide the batch.
  """
  batch_size = config.evaluation.batch_size
  rows = _process_rows(batch_size, process_index, process_count, "config.evaluation.batch_size")
  index = np.full(-(-len(split) // batch_size) * batch_size, -1, np.int32)
  index[: len(split)] = np.arange(len(split))
  index = index.reshape(-1, batch_size)[:, rows]
  return BatchIterator(
    lambda batch: _load_evaluation_rows(split, index[batch]),
    len(index),
    _EVALUATION_ROW,
    functools.partial(_make_evaluation_row, config.data),
    EvaluationBatch,
    lambda batch: _find_fault(split, index[batch][index[batch] >= 0]),
    rows.stop - rows.start,
    config.data.num_workers,
  )


def _process_rows(batch_size: int, index: int, count: int, field: str) -> slice:
  if batch_size % count:
    raise ConfigError(
      f"{field}: {count} processes cannot share a batch of {batch_size} images equally; make it a "
      f"multiple of {count}"
    )
  share = batch_size // count
  return slice(index * share, (index + 1) * share)


def _plan(step: int, sampler: Sampler, config: Config) -> _TrainPlan:
  """Draws the whole of batch `step`, whichever rows of it are wanted."""
  data = config.data
  return _TrainPlan(
    index=sampler.batch(step),
    augmentation=draw_augmentation(
      generator(config.seed, Purpose.AUGMENTATION, step),
      data.batch_size,
      data.image_size_hw,
      data.augmentation,
    ),
    kept_parts=draw_kept_parts(
      generator(config.seed, Purpose.OCCLUSION, step), data.batch_size, data.occlusion
    ),
  )


_TRAIN_ROW = (
  tf.TensorSpec((), tf.string),  # image file
  tf.TensorSpec((), tf.string),  # part-label file
  tf.TensorSpec((3,), tf.float32),  # colour
  tf.TensorSpec((), tf.bool),  # flip
  tf.TensorSpec((2,), tf.int32),  # crop
  tf.TensorSpec((4,), tf.int32),  # erased
  tf.TensorSpec((NUM_PARTS,), tf.uint8),  # kept parts
  tf.TensorSpec((), tf.int32),  # person_id
)


def _load_train_rows(split: ReidSplit, plan: _TrainPlan) -> Columns:
  files = _encoded(split, plan.index)
  return *files, *plan.augmentation, plan.kept_parts, split.person_id[plan.index]


def _make_train_row(
  config: DataConfig,
  image: tf.Tensor,
  part_labels: tf.Tensor,
  colour: tf.Tensor,
  flip: tf.Tensor,
  crop: tf.Tensor,
  erased: tf.Tensor,
  kept_parts: tf.Tensor,
  person_id: tf.Tensor,
) -> tuple[tf.Tensor, ...]:
  change = image_ops.Change(colour, flip, crop, erased)
  image = image_ops.training_image(image, change, config)
  part_labels = image_ops.training_part_labels(part_labels, change, config)
  return image, part_labels, kept_parts, person_id


def _make_train_batch(
  image: np.ndarray, part_labels: np.ndarray, kept_parts: np.ndarray, person_id: np.ndarray
) -> Batch:
  return Batch(
    image=image,
    part_labels=part_labels,
    keep_mask=keep_mask(part_labels, kept_parts),
    person_id=person_id,
  )


_EVALUATION_ROW = (
  tf.TensorSpec((), tf.string),  # image file; empty on padding
  tf.TensorSpec((), tf.int32),  # index
  tf.TensorSpec((), tf.uint8),  # mask
)


def _load_evaluation_rows(split: ReidSplit, index: np.ndarray) -> Columns:
  valid = index >= 0
  image = np.full(len(index), b"", object)
  image[valid] = _encoded(split, index[valid]).image
  return image, index, valid.astype(np.uint8)


def _make_evaluation_row(
  config: DataConfig, image: tf.Tensor, *columns: tf.Tensor
) -> tuple[tf.Tensor, ...]:
  image = tf.cond(
    tf.strings.length(image) > 0,
    lambda: image_ops.evaluation_image(image, config.image_size_hw),
    lambda: tf.zeros((*config.image_size_hw, 3), tf.uint8),
  )
  return image, *columns


def _encoded(split: ReidSplit, index: np.ndarray) -> EncodedImage:
  """Returns the files of some records, in two arrays of bytes."""
  files = [_read(split, i) for i in index]
  image, part_labels = (np.array([file[i] for file in files], object) for i in range(2))
  return EncodedImage(image, part_labels)


def _read(split: ReidSplit, index: int) -> EncodedImage:
  try:
    return split.encoded(index)
  except Exception as error:  # whatever the file system and the library of records make of it
    if "Corrupted" in str(error):  # what that library says to a wrong checksum
      raise _damaged(split, index, "record", error) from error
    # A file system may be back when a scheduler starts the run again; so this is no `UserError`.
    raise RuntimeError(
      f"{split.path[index]} ({split.name}): its record cannot be read from the prepared copy, in "
      f"config.data.data_dir: {error}"
    ) from error


def _find_fault(split: ReidSplit, index: np.ndarray) -> SourceError | None:
  """Returns what is wrong with the first of some records that the pipeline cannot decode."""
  for i in index:
    for kind, file, channels in zip(("image", "part labels"), _read(split, i), (3, 1)):
      try:
        image_ops.decode_file(file, channels)
      except image_ops.DecodingError as error:
        return _damaged(split, i, kind, error)
  return None


def _damaged(split: ReidSplit, index: int, kind: str, error: Exception) -> SourceError:
  reason = " ".join(str(error).split())
  return SourceError(
    f"{split.path[index]} ({split.name}): its {kind} cannot be read from the prepared copy "
    f"({reason}); check the image with magnifier_jax.tools.check_data, then delete the copy, in "
    "config.data.data_dir, to have it made anew"
  )
