"""Hides a part, or what is below a line, in images: where, and what is seen there instead."""

from typing import Literal

import numpy as np


def part_mask(parts: np.ndarray, part: int, size_hw: tuple[int, int]) -> np.ndarray:
  """Returns where a part lies.

  Args:
    parts: (B, h, w) uint8 in 0…7, on any grid.
    part: its number.
    size_hw: height and width of the images, pixels.

  Returns:
    (B, H, W) bool, by nearest neighbour.
  """
  rows, columns = (np.arange(n) * m // n for n, m in zip(size_hw, parts.shape[1:], strict=True))
  return parts[:, rows][:, :, columns] == part


def bottom_mask(batch_size: int, share: float, size_hw: tuple[int, int]) -> np.ndarray:
  """Returns the lowest rows of images.

  Args:
    batch_size: B.
    share: of the rows, 0 to 1.
    size_hw: height and width of the images, pixels.

  Returns:
    (B, H, W) bool.
  """
  height, width = size_hw
  mask = np.zeros((batch_size, height, width), bool)
  mask[:, height - round(share * height) :] = True
  return mask


def fill_images(
  images: np.ndarray,
  rows: np.ndarray,
  others: np.ndarray | None,
  fill: Literal["mean", "noise", "patch"],
  seed: int,
) -> np.ndarray:
  """Returns what is seen where something is hidden.

  Args:
    images: (B, H, W, 3) uint8.
    rows: (B,) numbers of the images in their data set; the noise of one depends on nothing else.
    others: (B, H, W, 3) uint8, for 'patch', the images whose pixels take those places.
    fill: 'mean' is each image's own mean colour.
    seed: of the noise.

  Returns:
    (B, H, W, 3) uint8.
  """
  if fill == "patch":
    return others
  if fill == "noise":
    # Padding has the row −1.
    return np.stack(
      [
        np.random.default_rng([seed, max(0, int(row))]).integers(0, 256, images.shape[1:], np.uint8)
        for row in rows
      ]
    )
  colours = images.mean(axis=(1, 2), keepdims=True).round().astype(np.uint8)
  return np.broadcast_to(colours, images.shape)


def other_rows(num_images: int, seed: int) -> np.ndarray:
  """Returns for each image the row of another one, (N,); every image is another's once."""
  offset = np.random.default_rng(seed).integers(1, max(num_images, 2))
  return np.roll(np.arange(num_images), -offset)
