"""Turns planned rows into batches of arrays, ahead of their use and on all cores, by tf.data."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from magnifier_jax.data.tensorflow_on_cpu import tf

_PREFETCHED_BATCHES = 2

Columns = tuple[np.ndarray, ...]  # of equal length B; files are object arrays of bytes


class BatchIterator(Iterator[Any]):
  """Iterates over batches that tf.data makes in the background.

  Their order is that of the plan, whatever the threads do. Dropping the iterator, or leaving
  Python, ends its threads.
  """

  def __init__(
    self,
    load_batches: Callable[[], Iterator[Columns]],
    row_signature: tuple[tf.TensorSpec, ...],
    make_row: Callable[..., tuple[tf.Tensor, ...]],
    make_batch: Callable[..., Any],
    batch_size: int,
    num_workers: int,
  ):
    """Starts the work.

    Args:
      load_batches: starts an iterator over the columns of each batch.
      row_signature: shape and type of each column in one row.
      make_row: TensorFlow function from the columns of one row to those of a finished row.
      make_batch: what a batch becomes, from its finished columns as numpy arrays.
      batch_size: B.
      num_workers: rows made at once; 0 leaves it to tf.data.
    """
    self._make_batch = make_batch
    dataset = _dataset(load_batches, row_signature, make_row, batch_size, num_workers)
    # A thread of tf.data that waits for `load_batches` while Python shuts down aborts the process;
    # so the finalizer, which runs at exit too, drops what is the only reference to the threads.
    self._running = [dataset.as_numpy_iterator()]
    weakref.finalize(self, self._running.clear)

  def __next__(self) -> Any:
    """Returns the next batch."""
    return self._make_batch(*next(self._running[0]))


def _dataset(
  load_batches: Callable[[], Iterator[Columns]],
  row_signature: tuple[tf.TensorSpec, ...],
  make_row: Callable[..., tuple[tf.Tensor, ...]],
  batch_size: int,
  num_workers: int,
) -> tf.data.Dataset:
  # Python is called once a batch: once a row would cost more than making the row.
  signature = tuple(tf.TensorSpec((batch_size, *row.shape), row.dtype) for row in row_signature)
  dataset = tf.data.Dataset.from_generator(load_batches, output_signature=signature)
  dataset = dataset.unbatch().map(make_row, num_parallel_calls=num_workers or tf.data.AUTOTUNE)
  options = tf.data.Options()
  # Rows are already made side by side; sharing one among threads only costs.
  options.threading.max_intra_op_parallelism = 1
  return dataset.batch(batch_size).prefetch(_PREFETCHED_BATCHES).with_options(options)
