"""Image files of the size of real crops of people, drawn from noise."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

_SIZE_HW = (256, 110)  # real crops vary around this
_DRAWN = 500  # the others have the same contents


def draw_files(folder: Path, count: int) -> list[str]:
  """Writes JPEG files of some 10 kB and returns their paths; the contents recur after 500."""
  random = np.random.default_rng(0)
  paths = [str(folder / f"{i:06}.jpg") for i in range(count)]
  for path in paths[:_DRAWN]:
    coarse = Image.fromarray(random.integers(0, 256, (16, 8, 3), np.uint8))
    image = coarse.resize(_SIZE_HW[::-1], Image.Resampling.BICUBIC)
    noise = random.normal(0, 6, (*_SIZE_HW, 3))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=90)
  for i, path in enumerate(paths[_DRAWN:]):
    os.link(paths[i % _DRAWN], path)
  return paths
