"""Layers against numpy and XLA's own operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from magnifier_jax.models.layers import BatchNorm, RecurrentLayer
from magnifier_jax.models.part_segmentation import Upsample
from magnifier_jax.models.parts import masked_max_pool, part_max_pool, resize_nearest

RANDOM = np.random.default_rng(0)


def _sigmoid(x: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-x))


def _values(layer: RecurrentLayer) -> list[np.ndarray]:
  names = ("kernel_input", "kernel_hidden", "bias_input", "bias_hidden")
  return [np.asarray(getattr(layer, name)[...]) for name in names]


def _lstm_by_loop(layer: RecurrentLayer, sequence: np.ndarray) -> np.ndarray:
  kernel_input, kernel_hidden, bias_input, bias_hidden = _values(layer)
  hidden = memory = np.zeros((len(sequence), layer.features))
  for x in sequence.swapaxes(0, 1):
    gates = x @ kernel_input + bias_input + hidden @ kernel_hidden + bias_hidden
    i, f, g, o = np.split(gates, 4, axis=1)
    memory = _sigmoid(f) * memory + _sigmoid(i) * np.tanh(g)
    hidden = _sigmoid(o) * np.tanh(memory)
  return hidden


def _gru_by_loop(layer: RecurrentLayer, sequence: np.ndarray) -> np.ndarray:
  kernel_input, kernel_hidden, bias_input, bias_hidden = _values(layer)
  hidden = np.zeros((len(sequence), layer.features))
  for x in sequence.swapaxes(0, 1):
    from_input, from_hidden = x @ kernel_input + bias_input, hidden @ kernel_hidden + bias_hidden
    (r, z, n), (hidden_r, hidden_z, hidden_n) = (
      np.split(values, 3, axis=1) for values in (from_input, from_hidden)
    )
    update = _sigmoid(z + hidden_z)
    candidate = np.tanh(n + _sigmoid(r + hidden_r) * hidden_n)
    hidden = (1 - update) * candidate + update * hidden
  return hidden


@pytest.mark.parametrize(("cell", "by_loop"), [("lstm", _lstm_by_loop), ("gru", _gru_by_loop)])
def test_recurrent_layer_equals_a_loop(cell: str, by_loop):
  layer = RecurrentLayer(5, 3, cell=cell, dtype=jnp.float32, rngs=nnx.Rngs(params=0))
  sequence = RANDOM.standard_normal((2, 8, 5)).astype(np.float32)
  np.testing.assert_allclose(layer(jnp.asarray(sequence)), by_loop(layer, sequence), rtol=1e-4)


def test_batch_norm_keeps_the_unbiased_variance():
  bn = BatchNorm(3, dtype=jnp.float32)
  x = RANDOM.standard_normal((64, 3)).astype(np.float32) * 2 + 1
  out = np.asarray(bn(jnp.asarray(x), train=True))
  np.testing.assert_allclose(out, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), atol=1e-5)
  np.testing.assert_allclose(bn.mean[...], 0.1 * x.mean(0), rtol=1e-5)
  np.testing.assert_allclose(bn.var[...], 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-5)


def test_batch_norm_has_the_gradient_of_its_formula():
  x, weights = (jnp.asarray(RANDOM.standard_normal((16, 2, 3)), jnp.float32) for _ in range(2))
  scale, bias = (jnp.asarray(RANDOM.standard_normal((2, 3)), jnp.float32) for _ in range(2))

  def by_layer(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    bn = BatchNorm(2, 3, dtype=jnp.float32)
    bn.scale[...], bn.bias[...] = scale, bias
    return (bn(x * 3 + 2, train=True) * weights).sum()

  def by_formula(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    x = x * 3 + 2
    mean = x.mean(0, keepdims=True)
    std = jnp.sqrt(jnp.square(x - mean).mean(0, keepdims=True) + BatchNorm.epsilon)
    return (((x - mean) / std * scale[None] + bias[None]) * weights).sum()

  ours = jax.grad(by_layer, argnums=(0, 1, 2))(x, scale, bias)
  expected = jax.grad(by_formula, argnums=(0, 1, 2))(x, scale, bias)
  for gradient, of_formula in zip(ours, expected):
    np.testing.assert_allclose(gradient, of_formula, atol=2e-5)


def test_batch_norm_of_a_constant_is_its_bias():
  bn = BatchNorm(3, dtype=jnp.float32)
  out = bn(jnp.full((64, 3), 1000.1, jnp.float32), train=True)
  np.testing.assert_allclose(out, 0.0, atol=0.05)
  assert (bn.var[...] >= 0).all()


def test_batch_norm_evaluates_with_running_statistics():
  bn = BatchNorm(2, 3, dtype=jnp.float32)
  bn.mean[...], bn.var[...] = jnp.full((2, 3), 2.0), jnp.full((2, 3), 4.0)
  out = bn(jnp.full((5, 2, 3), 6.0), train=False)
  np.testing.assert_allclose(out, 2.0, rtol=1e-5)
  np.testing.assert_allclose(bn.mean[...], 2.0)


def test_upsample_is_pytorchs_transposed_convolution():
  """Input row i, weighted by kernel row k, is added to output row 2i + k − 1."""
  layer = Upsample(4, 3, dtype=jnp.float32, rngs=nnx.Rngs(params=0))
  x = RANDOM.standard_normal((2, 5, 3, 4)).astype(np.float32)
  kernel = np.asarray(layer.kernel[...])
  expected = np.zeros((2, 12, 8, 3), np.float32)
  for i, j, row, column in np.ndindex(5, 3, 3, 3):
    expected[:, 2 * i + row, 2 * j + column] += x[:, i, j] @ kernel[:, row, column]
  expected = expected[:, 1:-1, 1:-1]
  np.testing.assert_allclose(layer(jnp.asarray(x)), expected, atol=1e-7)
  even = layer.at_even_pixels(jnp.asarray(x))
  np.testing.assert_allclose(even, expected[:, ::2, ::2], atol=1e-7)


def test_part_pooling_takes_the_maximum_of_each_part():
  features = np.abs(RANDOM.standard_normal((2, 4, 3, 5))).astype(np.float32)
  labels = RANDOM.integers(0, 6, (2, 4, 3)).astype(np.uint8)
  pooled = np.asarray(part_max_pool(jnp.asarray(features), labels))
  for b in range(2):
    for part in range(8):
      pixels = features[b][labels[b] == part]
      expected = pixels.max(axis=0) if len(pixels) else np.zeros(5)
      np.testing.assert_array_equal(pooled[b, part], expected)


def test_the_first_of_equal_maxima_of_a_part_gets_the_gradient():
  features = jnp.asarray([[[[2.0], [3.0], [1.0]], [[3.0], [7.0], [3.0]]]])  # [1, 2, 3, 1]
  labels = jnp.asarray([[[0, 1, 1], [1, 2, 1]]], jnp.uint8)
  gradient = jax.grad(lambda x: (part_max_pool(x, labels)[0, :, 0] * jnp.arange(1, 9)).sum())
  np.testing.assert_array_equal(gradient(features)[0, :, :, 0], [[1, 2, 0], [0, 3, 0]])
  masked = jax.grad(lambda x: masked_max_pool(x, labels == 1).sum())
  np.testing.assert_array_equal(masked(features)[0, :, :, 0], [[0, 1, 0], [0, 0, 0]])


def test_absent_part_gives_no_gradient():
  features = jnp.abs(jnp.asarray(RANDOM.standard_normal((1, 4, 3, 5)), jnp.float32))
  labels = np.zeros((1, 4, 3), np.uint8)
  gradient = jax.grad(lambda x: part_max_pool(x, labels)[:, 1:].sum())(features)
  assert (np.asarray(gradient) == 0).all()


@pytest.mark.parametrize(("height", "width"), [(4, 3), (8, 6), (16, 12)])
def test_nearest_resize_takes_the_floor(height: int, width: int):
  labels = RANDOM.integers(0, 8, (2, 8, 6))
  expected = labels[:, [i * 8 // height for i in range(height)]]
  expected = expected[:, :, [i * 6 // width for i in range(width)]]
  np.testing.assert_array_equal(resize_nearest(jnp.asarray(labels), height, width), expected)
