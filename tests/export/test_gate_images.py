"""The gate's images are the run's own where a prepared copy of them is at hand."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from magnifier_jax.config import DataConfig
from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.data.image_files import decode_image
from magnifier_jax.export.gate_images import gate_images
from tests.data.noise_tree import write_tree

from .random_network import narrow_config


def config(folder: Path) -> DataConfig:
  return narrow_config(data__manual_dir=str(folder), data__data_dir=str(folder / "prepared")).data


def test_queries_of_the_prepared_copy_though_the_files_are_gone(tmp_path: Path):
  write_tree(tmp_path, test_people=6)
  query = dataset_lib.load(config(tmp_path)).query
  shutil.rmtree(tmp_path / "cuhk03-np")
  images = gate_images(config(tmp_path), 3)
  assert images.described == "3 queries of cuhk03_np/labeled"
  last = Image.fromarray(decode_image(query.encoded(len(query) - 1).image))
  np.testing.assert_array_equal(images.pixels[-1], last.resize((32, 64), Image.BILINEAR))
  assert gate_images(config(tmp_path), 7).described == "7 drawn pedestrians"  # there are 6


def test_drawn_people_in_place_of_a_copy_that_is_gone_or_damaged(tmp_path: Path):
  drawn = gate_images(config(tmp_path), 4)
  assert drawn.described == "4 drawn pedestrians"
  assert (drawn.pixels.shape, drawn.pixels.dtype) == ((4, 64, 32, 3), np.uint8)
  assert len(np.unique(drawn.pixels.reshape(4, -1), axis=0)) == 4
  write_tree(tmp_path, test_people=6)
  dataset_lib.load(config(tmp_path))
  for file in (tmp_path / "prepared").rglob("*.array_record*"):
    file.unlink()
  np.testing.assert_array_equal(gate_images(config(tmp_path), 4).pixels, drawn.pixels)
