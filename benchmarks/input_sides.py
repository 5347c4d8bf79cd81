"""Both sides of the input benchmark: each makes the same training batches, and drops them."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.reporting import num_cores
from magnifier_jax.config import Config

# Batches before the clock starts, and after it stops: more than either side works ahead, and at
# least one of every worker process.
_RUN_UP = max(8, 2 * num_cores())


class InputLap(NamedTuple):
  """Times of one image, the mean of a turn."""

  seconds: float
  cpu_seconds: float  # of all threads and worker processes


class TensorflowSide:
  """Our pipeline.

  Args:
    config: of the batches and the data set.
    folder: of the other side's files; not read.
  """

  def __init__(self, config: Config, folder: Path):
    from magnifier_jax.data import dataset

    del folder
    self._config = config
    self._dataset = dataset.load(config.data)

  def lap(self, batches: int) -> InputLap:
    """Makes batches, and returns the mean time of an image."""
    from magnifier_jax.data.pipeline import train_batches

    stop = batches + 2 * _RUN_UP
    return _time(
      train_batches(self._dataset, self._config, 0, stop),
      batches,
      lambda batch: {os.getpid(): time.process_time()},
      self._config.data.batch_size,
    )


class DataLoaderSide:
  """Pillow and a DataLoader, one worker process a core.

  Args:
    config: of the batches and the data set.
    folder: with the images; see `pytorch_input.ImageFiles`.
    normalize: whether the workers make float32 of the images.
  """

  def __init__(self, config: Config, folder: Path, normalize: bool):
    from benchmarks.pytorch_input import ImageFiles

    self._config = config
    self._person_id = np.load(folder / "person_id.npy")
    self._files = ImageFiles(folder, self._person_id, config.data, normalize)

  def lap(self, batches: int) -> InputLap:
    """Makes batches, and returns the mean time of an image."""
    from benchmarks.pytorch_input import IdentityBatches, loader

    plan = IdentityBatches(self._person_id, self._config, 0, batches + 2 * _RUN_UP)
    return _time(
      iter(loader(self._files, plan, num_cores())),
      batches,
      lambda batch: {os.getpid(): time.process_time(), batch.worker: batch.cpu_seconds},
      self._config.data.batch_size,
    )


def _time(
  iterator: Iterator[Any],
  batches: int,
  cpu_seconds: Callable[[Any], dict[int, float]],
  batch_size: int,
) -> InputLap:
  """Times batches from the middle of an iterator, and goes on to its end, where all work is done.

  Args:
    iterator: of `batches` + 2 · `_RUN_UP`.
    batches: to time.
    cpu_seconds: batch → {process: CPU seconds so far}.
    batch_size: images in each.
  """
  before = {}
  for _ in range(_RUN_UP):
    before |= cpu_seconds(next(iterator))
  start, after = time.perf_counter(), dict(before)
  for _ in range(batches):
    after |= cpu_seconds(next(iterator))
  elapsed = time.perf_counter() - start
  for _ in iterator:
    pass
  images = batches * batch_size
  return InputLap(elapsed / images, (sum(after.values()) - sum(before.values())) / images)
