"""From class scores on a network's grid to the classes of an image's pixels."""

from typing import Literal, NamedTuple

import numpy as np
from PIL import Image


class Box(NamedTuple):
  """A rectangle, in cells of a grid or in pixels; edges may lie within a cell."""

  left: float
  top: float
  right: float
  bottom: float

  def scaled(self, x: float, y: float) -> "Box":
    """Returns the box on another grid over the same picture."""
    return Box(self.left * x, self.top * y, self.right * x, self.bottom * y)


def classes_of_scores(
  scores: np.ndarray, box: Box, size_hw: tuple[int, int], resize: Literal["bilinear", "nearest"]
) -> np.ndarray:
  """Returns the best class of each pixel.

  Args:
    scores: (C, h, w) float; larger is likelier.
    box: where the image lies on the grid, in cells.
    size_hw: of the image, pixels.
    resize: 'bilinear' interpolates the scores, 'nearest' takes the best class of the nearest cell.

  Returns:
    (H, W) int64, values 0…C−1.
  """
  if resize == "nearest":
    return classes_of_grid(scores.argmax(axis=0), box, size_hw)
  height, width = size_hw
  resized = [
    np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR, box=box))
    for channel in np.asarray(scores, np.float32)
  ]
  return np.argmax(resized, axis=0)


def classes_of_grid(classes: np.ndarray, box: Box, size_hw: tuple[int, int]) -> np.ndarray:
  """Returns the class of the cell that each pixel's middle lies in.

  Args:
    classes: (h, w) integers.
    box: where the image lies on the grid, in cells.
    size_hw: of the image, pixels.

  Returns:
    (H, W) of the same dtype.
  """
  height, width = size_hw
  rows = box.top + (np.arange(height) + 0.5) * (box.bottom - box.top) / height
  columns = box.left + (np.arange(width) + 0.5) * (box.right - box.left) / width
  rows = np.clip(rows.astype(int), 0, classes.shape[0] - 1)
  columns = np.clip(columns.astype(int), 0, classes.shape[1] - 1)
  return classes[rows[:, None], columns]
