"""What lies between a batch and the module: images come as they are in files."""

import jax
import numpy as np

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.models.network import create_network, normalize
from tests.drawn_weights import drawn_weights

MEAN, STD = (10.0, 20.0, 30.0), (2.0, 4.0, 5.0)


def test_images_are_normalised_by_channel():
  image = np.full((1, 1, 1, 3), 40, np.uint8)
  np.testing.assert_array_equal(normalize(image, MEAN, STD, np.float32)[0, 0, 0], [15, 5, 2])


def test_the_network_normalises_what_its_module_takes_normalised():
  values = get_config("small,baseline")
  values.model.backbone = "resnet10_narrow"
  values.data.update(pixel_mean=MEAN, pixel_std=STD)
  network, init = create_network(Config.from_config_dict(values), num_people=3)
  params, batch_stats = drawn_weights(init)
  images = np.random.default_rng(0).integers(0, 256, (2, 64, 32, 3), np.uint8)

  @jax.jit
  def both(images: jax.Array, normalized: jax.Array) -> tuple[jax.Array, jax.Array]:
    output, _ = network.apply(params, batch_stats, images, train=False)
    module = network.module(params, batch_stats)
    theirs = module(normalized, train=False)
    return output.global_branch.embedding, theirs.global_branch.embedding

  ours, theirs = both(images, (images - np.float32(MEAN)) / np.float32(STD))
  assert np.ptp(ours) > 0
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
