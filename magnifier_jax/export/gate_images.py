"""The images that an exported network is checked on: the run's own where they are at hand."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from magnifier_jax.config import DataConfig
from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.data.image_files import decode_image
from magnifier_jax.data.synthetic.cameras import CAMERAS
from magnifier_jax.data.synthetic.pedestrians import draw_pedestrian
from magnifier_jax.errors import UserError


class GateImages(NamedTuple):
  """Images of the network's size.

  Attributes:
    pixels: [N, H, W, 3] uint8 RGB.
    described: whose they are, for people.
  """

  pixels: np.ndarray
  described: str


def gate_images(config: DataConfig, number: int) -> GateImages:
  """Returns test images of a run's first data set, or drawn pedestrians where no copy is left.

  Args:
    config: reads the data set and `image_size_hw`.
    number: N.
  """
  queries = _queries(config, number)
  if len(queries) == number:
    return GateImages(
      _resized(queries, config.image_size_hw), f"{number} queries of {config.datasets[0]}"
    )
  drawn = list(_drawn(number))
  return GateImages(_resized(drawn, config.image_size_hw), f"{number} drawn pedestrians")


def _queries(config: DataConfig, number: int) -> list[np.ndarray]:
  """Returns queries that are spread evenly; [] where they cannot be had."""
  try:
    split = dataset_lib.open_last_used(config.of(config.datasets[0]), "query")
  except UserError:  # a damaged copy: training says so when it is used
    return []
  if split is None or len(split) < number:
    return []
  rows = np.linspace(0, len(split) - 1, number).astype(int)
  return [decode_image(split.encoded(row).image) for row in rows]


def _drawn(number: int) -> Iterator[np.ndarray]:
  for person_id in range(number):
    yield draw_pedestrian(0, person_id, person_id % len(CAMERAS), number=0).image


def _resized(images: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
  height, width = size_hw
  resized = (
    Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR) for image in images
  )
  return np.stack([np.asarray(image) for image in resized])
