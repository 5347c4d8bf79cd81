"""Winograd's algorithm gives what a convolution and its gradients give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from magnifier_jax.devices.mesh import data_mesh
from magnifier_jax.models.cpu import winograd

RANDOM = np.random.default_rng(0)


def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
  layout = ("NHWC", "HWIO", "NHWC")
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=layout)


def draw(*shape: int, dtype: str = "float64") -> jax.Array:
  return jnp.asarray(RANDOM.standard_normal(shape), dtype)


@pytest.fixture
def float64():
  with jax.enable_x64(True):
    yield


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (16, 4)])
def test_convolution_is_exact_in_float64(height: int, width: int):
  x, kernel = draw(2, height, width, 5), draw(3, 3, 5, 7)
  np.testing.assert_allclose(winograd.convolve(x, kernel), direct(x, kernel), atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (16, 4)])
def test_gradients_are_exact_in_float64(height: int, width: int):
  x, kernel, grad = draw(2, height, width, 5), draw(3, 3, 5, 7), draw(2, height, width, 7)
  of_x, of_kernel = winograd.gradients(x, kernel, grad)
  expected_of_x, expected_of_kernel = jax.vjp(direct, x, kernel)[1](grad)
  np.testing.assert_allclose(of_x, expected_of_x, atol=1e-12)
  np.testing.assert_allclose(of_kernel, expected_of_kernel, atol=1e-12)


def test_float32_is_within_a_hundred_thousandth():
  x, kernel = draw(4, 16, 16, 128, dtype="float32"), draw(3, 3, 128, 128, dtype="float32")
  expected = direct(x, kernel)
  error = jnp.linalg.norm(winograd.convolve(x, kernel) - expected)
  assert error < 1e-5 * jnp.linalg.norm(expected)


def test_batch_may_lie_on_several_devices():
  mesh = data_mesh()
  x, kernel = draw(8, 8, 8, 6, dtype="float32"), draw(3, 3, 6, 6, dtype="float32")
  over_batch = jax.sharding.NamedSharding(mesh, PartitionSpec("data"))
  gradients = jax.jit(winograd.gradients)
  split = gradients(jax.device_put(x, over_batch), kernel, jax.device_put(x, over_batch))
  for ours, expected in zip(split, gradients(x, kernel, x)):
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
