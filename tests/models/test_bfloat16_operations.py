"""What an operation computes in bfloat16 is float32's result, rounded once and without a bias.

Operations are those of the network, on inputs that bfloat16 holds exactly. A sum that is carried in
bfloat16 somewhere inside would be off by percents, or smaller than it should be.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from magnifier_jax.models.convolution import convolve, convolve_1x1
from magnifier_jax.models.layers import BatchNorm
from magnifier_jax.models.part_segmentation import upsample
from magnifier_jax.models.parts import masked_max_pool, part_max_pool
from magnifier_jax.models.resnet import max_pool_3x3, relu_of_sum

LABELS = np.random.default_rng(0).integers(0, 8, (16, 16, 8), np.uint8)


def _batch_norm(x: jax.Array) -> jax.Array:
  bn = BatchNorm(x.shape[-1], dtype=x.dtype)
  return nnx.merge(*nnx.split(bn), copy=True)(x, True)


def _pool_parts(x: jax.Array) -> jax.Array:
  return part_max_pool(jnp.maximum(x, 0), LABELS)


def _pool_kept(x: jax.Array) -> jax.Array:
  return masked_max_pool(jnp.maximum(x, 0), LABELS > 3)


MAP = (16, 16, 8, 64)
OPERATIONS: dict[str, tuple[Callable, tuple[tuple[int, ...], ...]]] = {
  "stem": (functools.partial(convolve, stride=2), ((16, 64, 32, 3), (7, 7, 3, 64))),
  "3x3": (functools.partial(convolve, stride=1), (MAP, (3, 3, 64, 64))),
  "3x3, strided": (functools.partial(convolve, stride=2), (MAP, (3, 3, 64, 128))),
  "1x1": (functools.partial(convolve_1x1, stride=1), (MAP, (64, 256))),
  "1x1, strided": (functools.partial(convolve_1x1, stride=2), (MAP, (64, 256))),
  "upsampling": (upsample, ((16, 8, 4, 128), (128, 3, 3, 64))),
  "BatchNorm": (_batch_norm, (MAP,)),
  "max pool": (max_pool_3x3, (MAP,)),
  "part pooling": (_pool_parts, (MAP,)),
  "masked pooling": (_pool_kept, (MAP,)),
  "relu of a sum": (relu_of_sum, (MAP, MAP)),
}


def _value_and_gradients(name: str, dtype: str) -> list[np.ndarray]:
  operation, shapes = OPERATIONS[name]
  random = np.random.default_rng(1)

  def draw(shape: tuple[int, ...], mean: float) -> jax.Array:
    return jnp.asarray((random.standard_normal(shape) + mean).astype(jnp.bfloat16), dtype)

  arrays = [draw(shape, 0.5 if i == 0 else 0.0) for i, shape in enumerate(shapes)]
  cotangent = draw(jax.eval_shape(operation, *arrays).shape, 0.3)

  @jax.jit
  def run(arrays: list[jax.Array], cotangent: jax.Array) -> list[jax.Array]:
    value, pull_back = jax.vjp(operation, *arrays)
    return [value, *pull_back(cotangent.astype(value.dtype))]

  return [np.asarray(array, np.float64) for array in run(arrays, cotangent)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_value_and_gradients_are_float32s_rounded(name: str):
  narrow, wide = (_value_and_gradients(name, dtype) for dtype in ("bfloat16", "float32"))
  for ours, exact in zip(narrow, wide, strict=True):
    error = np.linalg.norm(ours - exact) / np.linalg.norm(exact)
    bias = (ours * exact).sum() / np.square(exact).sum() - 1
    assert error < 3e-3
    assert abs(bias) < 2e-4
