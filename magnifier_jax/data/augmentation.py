"""The random changes of training images, drawn in numpy for a whole batch.

`image_ops` carries them out. Drawing first keeps batch n a function of (seed, n) whatever process
or thread makes which image, and the law of each draw testable without an image.
"""

from typing import NamedTuple

import numpy as np

from magnifier_jax.config import AugmentationConfig

_ERASING_ATTEMPTS = 100  # as the reference; with its settings 1 in 10 attempts does not fit


class Augmentation(NamedTuple):
  """What happens to each image of a batch, in this order."""

  colour: np.ndarray  # (B, 3) float32: factors of brightness, contrast and saturation
  flip: np.ndarray  # (B,) bool
  crop: np.ndarray  # (B, 2) int32: top and left of the crop in the padded image, pixels
  erased: np.ndarray  # (B, 4) int32: top, left, height, width in the crop; height 0 erases nothing

  def rows(self, rows: slice) -> "Augmentation":
    """Returns the changes of some images of the batch."""
    return Augmentation(*(field[rows] for field in self))


def draw_augmentation(
  random: np.random.Generator,
  batch_size: int,
  image_size_hw: tuple[int, int],
  config: AugmentationConfig,
) -> Augmentation:
  """Draws the changes of a batch.

  Args:
    random: the batch's stream.
    batch_size: B.
    image_size_hw: height and width of the training images, pixels.
    config: probabilities and ranges.
  """
  flip = random.random(batch_size) < config.flip_probability
  crop = random.integers(0, 2 * config.pad_pixels, (batch_size, 2), np.int32, endpoint=True)
  erased = _draw_erased(random, batch_size, image_size_hw, config)
  # Last, so that the others are the same whether colours change or not.
  strength = np.array([config.brightness, config.contrast, config.saturation])
  colour = (1 + strength * random.uniform(-1, 1, (batch_size, 3))).astype(np.float32)
  return Augmentation(colour, flip, crop, erased)


def _draw_erased(
  random: np.random.Generator,
  batch_size: int,
  image_size_hw: tuple[int, int],
  config: AugmentationConfig,
) -> np.ndarray:
  """Draws rectangles by random erasing's rule: the first of many attempts that fits the image.

  The share of the area and the aspect (height / width) are uniform, and so is the place.
  """
  image_size = np.array(image_size_hw)
  attempts = (batch_size, _ERASING_ATTEMPTS)
  area = random.uniform(*config.erasing_area, attempts) * image_size.prod()
  aspect = random.uniform(config.erasing_min_aspect, 1 / config.erasing_min_aspect, attempts)
  sizes = np.rint(np.sqrt(np.stack([area * aspect, area / aspect], axis=-1))).astype(np.int32)
  fits = (sizes < image_size).all(axis=-1)
  size = sizes[np.arange(batch_size), fits.argmax(axis=1)]
  corner = np.floor(random.random((batch_size, 2)) * (image_size - size + 1)).astype(np.int32)
  erase = (random.random(batch_size) < config.erasing_probability) & fits.any(axis=1)
  return np.concatenate([corner, size], axis=1) * erase[:, None].astype(np.int32)
