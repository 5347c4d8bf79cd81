"""A network of a few numbers, so that tests compile nothing."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from magnifier_jax.retrieval.network import EmbeddingNetwork

SIZE_HW = (16, 8)
THRESHOLDS = {
  "calibrated_on": "drawings, test people: 10 genuine and 1,000 impostor pairs",
  "flip": False,
  **{
    embedding: [
      {"false_accept_rate": 1e-2, "distance": 0.5, "true_accept_rate": 0.9},
      {"false_accept_rate": 1e-3, "distance": 0.05, "true_accept_rate": 0.6},
    ]
    for embedding in ("whole", "global", "fusion")
  },
}


class FakeNetwork(EmbeddingNetwork):
  """Two branches: the image at a quarter of its size, and its mean colours.

  Attributes:
    batch_sizes: of all calls.
  """

  def __init__(self, thresholds: Mapping[str, Any] | None = THRESHOLDS, weights: str = "f" * 64):
    self.description = "a fake"
    self.image_size_hw = SIZE_HW
    self.branches = {"global": 24, "fusion": 3}
    self.weights_sha256 = weights
    self.thresholds = thresholds
    self.batch_sizes: list[int] = []

  def embed_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the branches; of a white image NaN."""
    assert images.dtype == np.uint8
    assert images.shape[1:] == (*SIZE_HW, 3)
    self.batch_sizes.append(len(images))
    values = images.astype(np.float32) - 128
    values[(images == 255).all(axis=(1, 2, 3))] = np.nan
    cells = values.reshape(len(images), 4, 4, 2, 4, 3).mean(axis=(2, 4))
    # In the other order than `branches`, which counts.
    return {"fusion": cells.mean(axis=(1, 2)), "global": cells.reshape(len(images), -1)}


def pictures(count: int, seed: int = 0) -> np.ndarray:
  """Returns [count, H, W, 3] uint8 pictures of the network's size, no two alike."""
  coarse = np.random.default_rng(seed).integers(0, 255, (count, 4, 2, 3), np.uint8)
  return coarse.repeat(4, axis=1).repeat(4, axis=2)
