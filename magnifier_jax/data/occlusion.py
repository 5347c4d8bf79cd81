"""The semantic-occluded sample: which cells of the feature grid a drawn body part takes away."""

import numpy as np

from magnifier_jax.body_parts import BACKGROUND, LOWER_PARTS, NUM_PARTS, UPPER_PARTS
from magnifier_jax.config import OcclusionConfig


def draw_kept_parts(
  random: np.random.Generator, batch_size: int, config: OcclusionConfig
) -> np.ndarray:
  """Draws the parts that stay visible.

  Args:
    random: the batch's stream.
    batch_size: B.
    config: how many parts are drawn, and whether the images of a batch share one draw.

  Returns:
    (B, 8) uint8: 0 where a part is occluded, 1 elsewhere.
  """
  draws = batch_size if config.per_image else 1
  kept = np.ones((draws, NUM_PARTS), np.uint8)
  kept[:, BACKGROUND] = config.keep_background
  for parts, count in ((UPPER_PARTS, config.upper_parts), (LOWER_PARTS, config.lower_parts)):
    shuffled = np.argsort(random.random((draws, len(parts))), axis=1)
    np.put_along_axis(kept, np.array(parts)[shuffled[:, :count]], 0, axis=1)
  return np.repeat(kept, batch_size // draws, axis=0)


def keep_mask(part_labels: np.ndarray, kept_parts: np.ndarray) -> np.ndarray:
  """Brings kept parts to the feature grid.

  Args:
    part_labels: (B, H/8, W/8) uint8, values 0…7.
    kept_parts: (B, 8) uint8, 0 or 1.

  Returns:
    (B, H/16, W/16) uint8: 0 where an occluded part lies. The nearest neighbour of PyTorch's
    `interpolate`, which is the top left of each 2 × 2 cells.
  """
  grid = part_labels[:, ::2, ::2]
  return kept_parts[np.arange(len(grid))[:, None, None], grid]
