"""What an exported network takes and gives. Nothing here needs JAX or TensorFlow."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

INPUT_NAME, OUTPUT_NAME = "images", "embedding"
INPUTS = ("float32", "uint8")
BATCH = "batch"  # the size that is left open; BoxMOT looks for this name


class Signature(NamedTuple):
  """The one input and the one output of an exported network.

  Attributes:
    image_size_hw: H and W in pixels.
    pixel_mean: of R, G and B, of 0…255.
    pixel_std: likewise.
    input: 'float32' takes [B, 3, H, W], normalised outside; 'uint8' takes pixels [B, H, W, 3].
    branches: {branch: its width}, in the order in which they lie in the output [B, D].
  """

  image_size_hw: tuple[int, int]
  pixel_mean: tuple[float, float, float]
  pixel_std: tuple[float, float, float]
  input: Literal["float32", "uint8"]
  branches: Mapping[str, int]

  @property
  def layout(self) -> str:
    """The order of the input's axes."""
    return "NHWC" if self.input == "uint8" else "NCHW"

  @property
  def input_shape(self) -> tuple[str | int, ...]:
    """The input's shape; the number of images is open."""
    height, width = self.image_size_hw
    return (BATCH, height, width, 3) if self.input == "uint8" else (BATCH, 3, height, width)

  @property
  def width(self) -> int:
    """D, of all branches together."""
    return sum(self.branches.values())

  def to_input(self, pixels: np.ndarray) -> np.ndarray:
    """Makes the input of a batch.

    Args:
      pixels: RGB images [B, H, W, 3] uint8, of the network's size.

    Returns:
      An array of `input_shape`.
    """
    if self.input == "uint8":
      return pixels
    mean, std = np.float32(self.pixel_mean), np.float32(self.pixel_std)
    normalized = (pixels.astype(np.float32) - mean) / std
    return np.ascontiguousarray(normalized.transpose(0, 3, 1, 2))

  def by_branch(self, embeddings: np.ndarray) -> dict[str, np.ndarray]:
    """Divides embeddings [B, D] into {branch: [B, D_branch]}."""
    ends = np.cumsum(list(self.branches.values()))[:-1]
    return dict(zip(self.branches, np.split(embeddings, ends, axis=1), strict=True))
