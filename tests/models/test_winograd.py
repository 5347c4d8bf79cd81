"""Winograd's algorithm gives what a convolution and its gradients give, where it is chosen."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from magnifier_jax.mesh import data_mesh
from magnifier_jax.models import winograd
from magnifier_jax.models.layers import conv

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


@pytest.mark.parametrize(
  ("shape", "features", "dtype", "chosen"),
  [
    ((8, 16, 16, 128), 128, "float32", True),
    ((8, 16, 16, 64), 128, "float32", False),  # narrow
    ((8, 16, 18, 128), 128, "float32", False),  # not of whole tiles
    ((4, 16, 16, 128), 128, "float32", False),  # few tiles
    ((8, 16, 16, 128), 128, "bfloat16", False),  # too coarse for the transforms
  ],
)
def test_layer_takes_it_where_it_pays(
  shape: tuple[int, ...], features: int, dtype: str, chosen: bool
):
  layer = conv(shape[-1], features, 3, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(params=0))
  x = draw(*shape, dtype=dtype)
  forward = hlo(lambda x: layer(x), x)
  backward = hlo(jax.grad(lambda x: jnp.square(layer(x)).sum()), x)
  assert ("convolution" not in forward) == chosen
  assert ("convolution" not in backward) == chosen


def test_layer_and_its_gradient_are_those_of_the_convolution():
  layer = conv(128, 128, 3, dtype=jnp.float32, rngs=nnx.Rngs(params=0))
  x, kernel = draw(8, 16, 16, 128, dtype="float32"), layer.kernel[...]
  np.testing.assert_allclose(layer(x), direct(x, kernel), atol=1e-4)
  grad = jax.grad(lambda x: jnp.square(layer(x)).sum())(x)
  expected = jax.grad(lambda x: jnp.square(direct(x, kernel)).sum())(x)
  np.testing.assert_allclose(grad, expected, atol=1e-3)


def test_batch_may_lie_on_several_devices():
  mesh = data_mesh()
  x, kernel = draw(8, 8, 8, 6, dtype="float32"), draw(3, 3, 6, 6, dtype="float32")
  over_batch = jax.sharding.NamedSharding(mesh, PartitionSpec("data"))
  gradients = jax.jit(winograd.gradients)
  split = gradients(jax.device_put(x, over_batch), kernel, jax.device_put(x, over_batch))
  for ours, expected in zip(split, gradients(x, kernel, x)):
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def hlo(function: Callable, x: jax.Array) -> str:
  return jax.jit(function).lower(x).compile().as_text()
