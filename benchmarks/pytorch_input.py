"""Training batches as PyTorch users make them: Pillow in the worker processes of a DataLoader.

The same images and changes as `magnifier_jax.data.pipeline.train_batches`, but for colours, which
the authors leave alone. What is random is drawn by our functions for a whole batch, which costs
little beside the pixels, and handed to the workers.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from magnifier_jax.config import Config, DataConfig
from magnifier_jax.data.augmentation import draw_augmentation
from magnifier_jax.data.identity_sampling import IdentitySampler
from magnifier_jax.data.occlusion import draw_kept_parts, keep_mask
from magnifier_jax.data.random_streams import Purpose, generator

_LABEL_STRIDE = 8


class Request(NamedTuple):
  """One image of a batch, and what happens to it."""

  index: int
  flip: bool
  crop: np.ndarray  # (2,): top and left in the padded image
  erased: np.ndarray  # (4,): top, left, height, width; height 0 erases nothing
  kept_parts: np.ndarray  # (8,) uint8


class Row(NamedTuple):
  """One image, finished."""

  image: np.ndarray  # (H, W, 3) uint8, or (3, H, W) float32, normalised
  part_labels: np.ndarray  # (H/8, W/8) uint8
  kept_parts: np.ndarray
  person_id: int


class LoadedBatch(NamedTuple):
  """A batch, and what its worker has used so far."""

  image: Tensor
  part_labels: Tensor
  keep_mask: Tensor
  person_id: Tensor
  worker: int  # process id
  cpu_seconds: float


class IdentityBatches(Sampler[list[Request]]):
  """The requests of batches `start_step` to `stop_step`, as our pipeline draws them."""

  def __init__(self, person_id: np.ndarray, config: Config, start_step: int, stop_step: int):
    data = config.data
    self._config, self._steps = config, range(start_step, stop_step)
    self._sampler = IdentitySampler(
      person_id, data.identities_per_batch, data.images_per_identity, config.seed
    )

  def __len__(self) -> int:
    return len(self._steps)

  def __iter__(self) -> Iterator[list[Request]]:
    config, data = self._config, self._config.data
    for step in self._steps:
      augmentation = draw_augmentation(
        generator(config.seed, Purpose.AUGMENTATION, step),
        data.batch_size,
        data.image_size_hw,
        data.augmentation,
      )
      random = generator(config.seed, Purpose.OCCLUSION, step)
      kept_parts = draw_kept_parts(random, data.batch_size, data.occlusion)
      changes = augmentation.flip, augmentation.crop, augmentation.erased
      columns = zip(self._sampler.batch(step), *changes, kept_parts)
      yield [Request(*row) for row in columns]


class ImageFiles(Dataset):
  """Training images and part labels in files.

  Args:
    folder: with INDEX.image and INDEX.labels, as `input_pipeline` writes them.
    person_id: (N,) int32.
    config: sizes, pixel mean and standard deviation, padding.
    normalize: True makes float32 images; False leaves them uint8, to be normalised on the device.
  """

  def __init__(self, folder: Path, person_id: np.ndarray, config: DataConfig, normalize: bool):
    self._folder, self._person_id, self._config = folder, person_id, config
    self._normalize = normalize
    self._mean, self._std = np.float32(config.pixel_mean), np.float32(config.pixel_std)
    self._fill = np.array([round(mean) for mean in config.pixel_mean], np.uint8)

  def __len__(self) -> int:
    return len(self._person_id)

  def __getitem__(self, request: Request) -> Row:
    size_wh = self._config.image_size_hw[::-1]
    with Image.open(self._folder / f"{request.index}.image") as file:
      image = np.asarray(file.convert("RGB").resize(size_wh, Image.Resampling.BILINEAR))
    with Image.open(self._folder / f"{request.index}.labels") as file:
      part_labels = np.asarray(file.resize(size_wh, Image.Resampling.NEAREST))
    image, part_labels = (self._flip_and_crop(pixels, request) for pixels in (image, part_labels))
    top, left, height, width = request.erased
    image[top : top + height, left : left + width] = self._fill
    half = _LABEL_STRIDE // 2  # what a resize to an eighth by nearest neighbour takes
    part_labels = np.ascontiguousarray(part_labels[half::_LABEL_STRIDE, half::_LABEL_STRIDE])
    if self._normalize:
      normalized = (image.astype(np.float32) - self._mean) / self._std
      image = np.ascontiguousarray(normalized.transpose(2, 0, 1))
    return Row(image, part_labels, request.kept_parts, self._person_id[request.index])

  def _flip_and_crop(self, pixels: np.ndarray, request: Request) -> np.ndarray:
    """Pads with zeros and crops; writes each pixel once."""
    if request.flip:
      pixels = pixels[:, ::-1]
    pad = self._config.augmentation.pad_pixels
    cropped = np.zeros(pixels.shape, pixels.dtype)
    targets, sources = [], []
    for size, start in zip(pixels.shape, request.crop - pad):
      targets.append(slice(max(0, -start), min(size, size - start)))
      sources.append(slice(max(0, start), min(size, size + start)))
    cropped[tuple(targets)] = pixels[tuple(sources)]
    return cropped


def collate(rows: list[Row]) -> LoadedBatch:
  """Stacks rows, and marks the occluded parts."""
  image, part_labels, kept_parts, person_id = (np.stack(column) for column in zip(*rows))
  arrays = image, part_labels, keep_mask(part_labels, kept_parts), person_id
  return LoadedBatch(*map(torch.from_numpy, arrays), os.getpid(), time.process_time())


def loader(dataset: ImageFiles, batches: IdentityBatches, workers: int) -> DataLoader:
  """Returns a DataLoader; `workers` 0 loads in this process."""
  return DataLoader(dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate)
