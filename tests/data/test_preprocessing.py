"""From an image file to what the network sees: ours beside Pillow's resize and torchvision's
normalisation, measured by what they change in embeddings."""

import io
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.data import image_ops
from magnifier_jax.data.tensorflow_on_cpu import tf
from magnifier_jax.interop.state_dict import load_state_dict
from magnifier_jax.models.network import create_network, normalize
from tests.golden_numbers import fixture

CONFIG = Config.from_config_dict(get_config())
HEIGHT, WIDTH = CONFIG.data.image_size_hw
NUM_IMAGES = 50
BATCH = 10


@pytest.fixture(scope="module")
def files(real_data: Path) -> list[bytes]:
  """Fifty images, evenly spaced over training, query and gallery."""
  paths = sorted((real_data / "cuhk03-np" / "labeled").rglob("*.jpg"))
  chosen = np.linspace(0, len(paths) - 1, NUM_IMAGES).astype(int)
  return [paths[i].read_bytes() for i in chosen]


@pytest.fixture(scope="module")
def ours(files: list[bytes]) -> np.ndarray:
  """What the evaluation's pipeline makes of them, [50, H, W, 3] uint8."""
  return np.stack([image_ops.evaluation_image(tf.constant(f), (HEIGHT, WIDTH)) for f in files])


@pytest.fixture(scope="module")
def pillows(files: list[bytes]) -> np.ndarray:
  """What Pillow makes of them, [50, H, W, 3] uint8."""
  images = (Image.open(io.BytesIO(file)).convert("RGB") for file in files)
  return np.stack([image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR) for image in images])


def torchvision_normalize(images: np.ndarray) -> np.ndarray:
  """`ToTensor` and `Normalize` with ImageNet's statistics, channels last."""
  mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
  return (images.astype(np.float32) / np.float32(255) - mean) / std


def our_normalize(images: np.ndarray) -> jax.Array:
  """What the network does with images before its first layer."""
  return normalize(jnp.asarray(images), CONFIG.data.pixel_mean, CONFIG.data.pixel_std, jnp.float32)


def test_files_decode_as_in_pillow(files: list[bytes]):
  for file in files:
    decoded = image_ops._decode(tf.constant(file), channels=3).numpy()
    np.testing.assert_array_equal(decoded, Image.open(io.BytesIO(file)).convert("RGB"))


def test_pixels_differ_by_a_level_at_most(ours: np.ndarray, pillows: np.ndarray):
  """Pillow rounds to whole levels after each axis, ours once."""
  difference = np.abs(ours.astype(int) - pillows)
  assert difference.max() == 1
  assert (difference > 0).mean() < 0.2


def test_normalisation_is_torchvisions(pillows: np.ndarray):
  np.testing.assert_allclose(
    our_normalize(pillows), torchvision_normalize(pillows), rtol=0, atol=1e-6
  )


@pytest.mark.slow
def test_embeddings_hardly_differ(ours: np.ndarray, pillows: np.ndarray):
  """With the weights of the reference's golden numbers, at the size of the authors' images."""
  network, init = create_network(CONFIG, fixture.NUM_CLASSES)
  shapes = jax.eval_shape(lambda: init(jax.random.key(0)))
  weights = load_state_dict(fixture.state_dict(), *shapes)
  params, batch_stats = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)

  @jax.jit
  def embed(images: jax.Array) -> jax.Array:
    output = network.module(params, batch_stats)(images, train=False)
    return jnp.concatenate(list(output.embeddings().values()), axis=1)

  def embed_all(images: np.ndarray, normalize: Callable) -> np.ndarray:
    batches = images.reshape(-1, BATCH, *images.shape[1:])
    return np.concatenate([embed(normalize(batch)) for batch in batches])

  expected = embed_all(pillows, torchvision_normalize)
  difference = embed_all(ours, our_normalize) - expected
  relative = np.linalg.norm(difference, axis=1) / np.linalg.norm(expected, axis=1)
  assert relative.max() < 1e-2
  assert np.median(relative) < 3e-3
