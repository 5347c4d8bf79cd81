"""Convolutions and their gradients, and where Winograd's algorithm computes them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from magnifier_jax.models.convolution import Conv, convolve

RANDOM = np.random.default_rng(0)


def direct(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  padding = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((padding, padding), (padding, padding)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def draw(*shape: int, dtype: str = "float64") -> jax.Array:
  return jnp.asarray(RANDOM.standard_normal(shape), dtype)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
  ("height", "width", "size", "stride"),
  [
    (12, 8, 3, 1),
    (12, 8, 3, 2),
    (5, 2, 3, 1),
    (12, 8, 7, 2),  # here and below, what comes out has fewer pixels than the kernel
    (4, 2, 3, 1),
    (1, 1, 3, 1),
    (8, 4, 3, 2),
  ],
)
def test_value_and_gradients_are_those_of_the_library(
  height: int, width: int, size: int, stride: int
):
  x, kernel = draw(2, height, width, 5), draw(size, size, 5, 7)
  grad = draw(2, height // stride, width // stride, 7)
  value, pull_back = jax.vjp(lambda x, kernel: convolve(x, kernel, stride), x, kernel)
  expected, expected_pull_back = jax.vjp(lambda x, kernel: direct(x, kernel, stride), x, kernel)
  np.testing.assert_allclose(value, expected, atol=1e-12)
  for ours, theirs in zip(pull_back(grad), expected_pull_back(grad)):
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize(
  ("shape", "features", "dtype", "chosen", "chosen_backward"),
  [
    ((8, 16, 16, 128), 128, "float32", True, True),
    ((8, 16, 16, 64), 64, "float32", True, False),  # its gradient's transforms take memory
    ((8, 16, 16, 32), 128, "float32", False, False),  # narrow
    ((8, 16, 18, 128), 128, "float32", False, False),  # not of whole tiles
    ((4, 16, 16, 128), 128, "float32", False, False),  # few tiles
    ((8, 16, 16, 128), 128, "bfloat16", False, False),  # too coarse for the transforms
  ],
)
def test_layer_takes_it_where_it_pays(
  shape: tuple[int, ...], features: int, dtype: str, chosen: bool, chosen_backward: bool
):
  layer = Conv(shape[-1], features, 3, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(params=0))
  x = draw(*shape, dtype=dtype)
  forward = hlo(lambda x: layer(x), x)
  backward = hlo(jax.grad(lambda x: jnp.square(layer(x)).sum()), x)
  assert (" convolution(" not in forward) == chosen
  assert (" convolution(" not in backward) == chosen_backward


@pytest.mark.parametrize(("height", "width", "stride"), [(4, 2, 1), (8, 4, 2)])
def test_a_map_with_fewer_pixels_than_the_kernel_is_left_to_no_loop(
  height: int, width: int, stride: int
):
  layer = Conv(16, 16, 3, stride=stride, dtype=jnp.float32, rngs=nnx.Rngs(params=0))
  x = draw(8, height, width, 16, dtype="float32")
  assert " convolution(" not in hlo(jax.grad(lambda x: jnp.square(layer(x)).sum()), x)


def test_layer_and_its_gradient_are_those_of_the_convolution():
  layer = Conv(128, 128, 3, dtype=jnp.float32, rngs=nnx.Rngs(params=0))
  x, kernel = draw(8, 16, 16, 128, dtype="float32"), layer.kernel[...]
  np.testing.assert_allclose(layer(x), direct(x, kernel), atol=1e-4)
  grad = jax.grad(lambda x: jnp.square(layer(x)).sum())(x)
  expected = jax.grad(lambda x: jnp.square(direct(x, kernel)).sum())(x)
  np.testing.assert_allclose(grad, expected, atol=1e-3)


def hlo(function: Callable, x: jax.Array) -> str:
  return jax.jit(function).lower(x).compile().as_text()
