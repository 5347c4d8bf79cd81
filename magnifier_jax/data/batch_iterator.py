"""Turns planned rows into batches of arrays, ahead of their use and on all cores, by tf.data."""

import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from magnifier_jax.data.tensorflow_on_cpu import tf

_PREFETCHED_BATCHES = 2

Columns = tuple[np.ndarray, ...]  # of equal length B; files are object arrays of bytes


class BatchIterator(Iterator[Any]):
  """Iterates over batches that tf.data makes in the background.

  Their order is that of the plan, whatever the threads do. An error, the end, dropping the iterator
  and leaving Python end its threads.
  """

  def __init__(
    self,
    load_batch: Callable[[int], Columns],
    num_batches: int | None,
    row_signature: tuple[tf.TensorSpec, ...],
    make_row: Callable[..., tuple[tf.Tensor, ...]],
    make_batch: Callable[..., Any],
    find_fault: Callable[[int], Exception | None],
    batch_size: int,
    num_workers: int,
  ):
    """Starts the work.

    Args:
      load_batch: returns the columns of batch 0, 1, ….
      num_batches: how many there are; None: no end.
      row_signature: shape and type of each column in one row.
      make_row: TensorFlow function from the columns of one row to those of a finished row.
      make_batch: what a batch becomes, from its finished columns as numpy arrays.
      find_fault: looks for what is wrong with the files of a batch that cannot be made.
      batch_size: B.
      num_workers: rows made at once; 0 leaves it to tf.data.
    """
    self._make_batch, self._find_fault = make_batch, find_fault
    self._num_delivered = 0
    loader = _Loader(load_batch, num_batches)
    self._load_failures = loader.failures
    dataset = _dataset(loader.batches, row_signature, make_row, batch_size, num_workers)
    # A thread of tf.data that waits for `load_batch` while Python shuts down aborts the process; so
    # the finalizer, which runs at exit too, drops what is the only reference to the threads.
    self._running = [dataset.as_numpy_iterator()]
    weakref.finalize(self, self._running.clear)

  def __next__(self) -> Any:
    """Returns the next batch.

    Raises:
      Exception: what `load_batch` raised, or what `find_fault` found where rows cannot be made.
    """
    if not self._running:
      raise StopIteration
    try:
      columns = next(self._running[0])
    except BaseException as error:  # the end and Ctrl-C too
      failure = error
    else:
      self._num_delivered += 1
      return self._make_batch(*columns)
    self._stop(failure)
    raise self._explain(failure)

  def _stop(self, failure: BaseException) -> None:
    """Ends the threads, now.

    The frames of TensorFlow in a traceback hold the iterator, and a traceback may live until Python
    shuts down. Then a thread that loads a batch cannot enter Python any more, and the iterator's
    destructor would wait for it for ever.
    """
    traceback.clear_frames(failure.__traceback__)
    failure.__traceback__ = failure.__context__ = failure.__cause__ = None
    self._running.clear()

  def _explain(self, failure: BaseException) -> BaseException:
    """Returns what is to be raised for what tf.data raised."""
    if not isinstance(failure, tf.errors.OpError):
      return failure
    if self._load_failures:
      return self._load_failures[0]
    batch = self._num_delivered  # they come in order, so this is the one that failed
    fault = self._find_fault(batch)
    return fault or RuntimeError(f"batch {batch} of the input failed: {failure.message}")


class _Loader:
  """Calls `load_batch` in a thread of tf.data, and keeps what it raised.

  tf.data itself keeps the text only. No reference to the iterator may get in here: tf.data holds
  the generator as long as the process lives.
  """

  def __init__(self, load_batch: Callable[[int], Columns], num_batches: int | None):
    self.failures: list[BaseException] = []
    self._load_batch, self._num_batches = load_batch, num_batches

  def batches(self) -> Iterator[Columns]:
    batch = 0
    while self._num_batches is None or batch < self._num_batches:
      try:
        columns = self._load_batch(batch)
      except BaseException as error:
        self.failures.append(error)
        raise
      yield columns
      batch += 1


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
  # It has no Python `if` or loop over tensors to rewrite, which would take 0.4 s.
  make_row = tf.autograph.experimental.do_not_convert(make_row)
  dataset = dataset.unbatch().map(make_row, num_parallel_calls=num_workers or tf.data.AUTOTUNE)
  options = tf.data.Options()
  # Rows are already made side by side; sharing one among threads only costs.
  options.threading.max_intra_op_parallelism = 1
  return dataset.batch(batch_size).prefetch(_PREFETCHED_BATCHES).with_options(options)
