"""What the two sides of the speed benchmarks have in common: the work, and how it is timed."""

import abc
import dataclasses
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.cuhk03_config import cuhk03_config
from benchmarks.reporting import forget_peak, peak_megabytes
from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.config import Config
from magnifier_jax.data.occlusion import draw_kept_parts, keep_mask
from magnifier_jax.train_state import Batch

IMAGES_PER_IDENTITY = 4
_MATRIX_SIZE = {"cpu": 4096, "gpu": 8192, "tpu": 8192}  # large enough for the full rate
_MATRIX_PRODUCTS = {"cpu": 3, "gpu": 50, "tpu": 50}  # about a second
_CELL = 6  # part labels come in patches, as on a body


class Work(NamedTuple):
  """What both sides do."""

  task: Literal["train_step", "embedding"]
  device: Literal["cpu", "gpu", "tpu"]
  batch_size: int
  image_size_hw: tuple[int, int]  # pixels
  backbone: str
  dtype: str
  rematerialize: bool = False  # ours alone
  matrix_size: int | None = None  # of the products for the rate; None is large enough for it

  def config(self) -> Config:
    """Returns the config of the network.

    Raises:
      ConfigError: when a value is not one that the config allows.
    """
    config = cuhk03_config(self.backbone, self.image_size_hw, self.dtype)
    model = dataclasses.replace(config.model, rematerialize=self.rematerialize)
    return dataclasses.replace(config, model=model)


class Lap(NamedTuple):
  """Times of one step, the mean of a turn."""

  seconds: float
  cpu_seconds: float  # of all threads of the process


class Peaks(NamedTuple):
  """Most memory in MB of 2²⁰ bytes: of the process, or of its arrays on the GPU."""

  steps: float | None  # since the first step; None where the peak cannot be started anew
  whole: float  # compilation included


def draw_batch(work: Work) -> Batch:
  """Returns the same random batch to both sides, in numpy."""
  random = np.random.default_rng(0)
  height, width = work.image_size_hw
  image = random.integers(0, 256, (work.batch_size, height, width, 3), np.uint8)
  patches = random.integers(0, NUM_PARTS, (work.batch_size, height // 8, width // 8), np.uint8)
  part_labels = patches.repeat(_CELL, 1).repeat(_CELL, 2)[:, : height // 8, : width // 8]
  kept = draw_kept_parts(random, work.batch_size, work.config().data.occlusion)
  person_id = np.arange(work.batch_size, dtype=np.int32) // IMAGES_PER_IDENTITY
  return Batch(
    image=image,
    part_labels=part_labels,
    keep_mask=keep_mask(part_labels, kept),
    person_id=person_id,
  )


class Side(abc.ABC):
  """A network with a batch on its device, ready to do steps.

  Args:
    work: what to do.
  """

  def __init__(self, work: Work):
    self.work = work
    self._whole_peak = 0.0
    self._peak_is_of_steps = False

  @abc.abstractmethod
  def run(self, steps: int) -> None:
    """Does steps one after the other, and waits for the last."""

  @abc.abstractmethod
  def matrix_product(self, size: int) -> Callable[[int], None]:
    """Draws square matrices in the work's dtype; what it returns multiplies them n times."""

  def warm_up(self) -> Lap:
    """Compiles, and returns the time of one step after that; peaks count from there on."""
    self.run(1)
    self._whole_peak = peak_megabytes()
    self._peak_is_of_steps = forget_peak()
    return self.lap(1)

  def lap(self, steps: int) -> Lap:
    """Does steps, and returns the mean time of one."""
    start, cpu_start = time.perf_counter(), time.process_time()
    self.run(steps)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return Lap(seconds / steps, cpu_seconds / steps)

  def cpu_seconds(self) -> float:
    """Returns what all threads of the process have used so far."""
    return time.process_time()

  def peaks(self) -> Peaks:
    """Returns the most memory so far."""
    peak = peak_megabytes()
    return Peaks(peak if self._peak_is_of_steps else None, max(peak, self._whole_peak))

  def matrix_product_rate(self) -> float:
    """Returns operations a second in large matrix products: the most that steps could reach."""
    device = self.work.device
    size, times = self.work.matrix_size or _MATRIX_SIZE[device], _MATRIX_PRODUCTS[device]
    multiply = self.matrix_product(size)
    multiply(1)
    rates = []
    for _ in range(3):
      start = time.perf_counter()
      multiply(times)
      rates.append(2 * size**3 * times / (time.perf_counter() - start))
    return max(rates)
