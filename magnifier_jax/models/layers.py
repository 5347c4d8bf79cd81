"""Layers with PyTorch's semantics: initialisation, batch statistics, vector BN and LSTM cells."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers

# U(±1/√fan_in), the default of PyTorch's convolutions and linear layers.
torch_default = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
tiny_normal = initializers.normal(stddev=1e-3)


def param_dtype_of(dtype: jnp.dtype) -> jnp.dtype:
  """Returns the dtype of parameters and statistics: at least float32."""
  return jnp.promote_types(dtype, jnp.float32)


class BatchNorm(nnx.Module):
  """Batch normalisation over all axes but the trailing `shape`, as PyTorch computes it.

  Statistics are of the global batch, in at least float32. The running variance is the unbiased
  one, unlike `nnx.BatchNorm`'s: on a BN neck's 64 vectors the two differ by 1.6 %.

  Args:
    shape: of scale and bias; (C,) for feature maps and vectors, (S, C) for S necks at once.
    dtype: of the result.
  """

  momentum = 0.9  # share of the old running value; PyTorch calls this momentum 0.1
  epsilon = 1e-5

  def __init__(self, *shape: int, dtype: jnp.dtype):
    self.dtype = dtype
    self.scale = nnx.Param(jnp.ones(shape, param_dtype_of(dtype)))
    self.bias = nnx.Param(jnp.zeros(shape, param_dtype_of(dtype)))
    self.mean = nnx.BatchStat(jnp.zeros(shape, param_dtype_of(dtype)))
    self.var = nnx.BatchStat(jnp.ones(shape, param_dtype_of(dtype)))

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Normalises x [..., *shape]; in training by its own statistics, which update the running."""
    scale, bias = self.scale[...], self.bias[...]
    if train:
      normalized, mean, var = _normalize_by_batch(x, scale, bias, self.epsilon)
      self._update_statistics(mean, var, x.size // mean.size)
    else:
      normalized = _normalize(x, scale, bias, self.mean[...], self.var[...], self.epsilon)
    return normalized.astype(self.dtype)

  def _update_statistics(self, mean: jax.Array, var: jax.Array, count: int) -> None:
    unbiased = var * (count / max(count - 1, 1))
    self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * mean
    self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * unbiased


def _normalize(
  x: jax.Array, scale: jax.Array, bias: jax.Array, mean: jax.Array, var: jax.Array, epsilon: float
) -> jax.Array:
  scale = scale * jax.lax.rsqrt(var + epsilon)
  return x * _expand(scale, x) + _expand(bias - mean * scale, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalize_by_batch(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns x normalised by its own statistics, and these: mean, and the variance of the batch.

  The variance is E[x²] − E[x]²: sums over x, where x − E[x] would be an array of its own on a CPU.
  The gradient is two more sums, fewer than JAX's. None flows through the statistics.
  """
  axes = _batch_axes(x, scale)
  x = x.astype(scale.dtype)
  mean = x.mean(axes)
  var = jnp.maximum(jnp.square(x).mean(axes) - jnp.square(mean), 0)
  return _normalize(x, scale, bias, mean, var, epsilon), mean, var


def _normalize_forward(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple, tuple]:
  normalized, mean, var = _normalize_by_batch(x, scale, bias, epsilon)
  return (normalized, mean, var), (x, scale, mean, var)


def _normalize_backward(
  epsilon: float, saved: tuple, grads: tuple
) -> tuple[jax.Array, jax.Array, jax.Array]:
  x, scale, mean, var = saved
  grad, *_ = grads
  axes, dtype = _batch_axes(x, scale), x.dtype
  x = x.astype(scale.dtype)
  inverse_std = jax.lax.rsqrt(var + epsilon)
  grad_bias = grad.sum(axes)
  grad_scale = ((grad * x).sum(axes) - mean * grad_bias) * inverse_std
  # scale / std · (grad − E[grad] − x̂ E[grad · x̂]), as a product with grad, one with x and a sum.
  count = x.size // mean.size
  of_grad = scale * inverse_std
  of_x = of_grad * inverse_std * grad_scale / count
  offset = mean * of_x - of_grad * grad_bias / count
  grad_x = grad * _expand(of_grad, x) - x * _expand(of_x, x) + _expand(offset, x)
  return grad_x.astype(dtype), grad_scale, grad_bias


_normalize_by_batch.defvjp(_normalize_forward, _normalize_backward)


def _batch_axes(x: jax.Array, scale: jax.Array) -> tuple[int, ...]:
  return tuple(range(x.ndim - scale.ndim))


def _expand(channels: jax.Array, x: jax.Array) -> jax.Array:
  return jnp.expand_dims(channels, _batch_axes(x, channels))


def classifier(features: int, classes: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear:
  """Returns a linear classifier with the reference's small initial weights."""
  return nnx.Linear(
    features,
    classes,
    kernel_init=tiny_normal,
    dtype=dtype,
    param_dtype=param_dtype_of(dtype),
    rngs=rngs,
  )


class RecurrentLayer(nnx.Module):
  """One recurrent layer over a short sequence, with PyTorch's two biases.

  The input projection of all steps is one product; only the recurrent one runs in sequence.

  Args:
    cell: 'lstm' or 'gru'. Gates are ordered as in PyTorch: i, f, g, o and r, z, n.
  """

  def __init__(
    self, in_features: int, features: int, *, cell: str, dtype: jnp.dtype, rngs: nnx.Rngs
  ):
    self.features = features
    self.dtype = dtype
    self.cell = cell
    gates = {"lstm": 4, "gru": 3}[cell] * features
    bound = features**-0.5

    def uniform(*shape: int) -> nnx.Param:
      values = jax.random.uniform(rngs.params(), shape, param_dtype_of(dtype), -bound, bound)
      return nnx.Param(values)

    self.kernel_input = uniform(in_features, gates)
    self.kernel_hidden = uniform(features, gates)
    self.bias_input = uniform(gates)
    self.bias_hidden = uniform(gates)

  def __call__(self, sequence: jax.Array) -> jax.Array:
    """Runs over sequence [B, S, C] and returns the last hidden state [B, features]."""
    dtype = self.dtype
    kernel_hidden = self.kernel_hidden[...].astype(dtype)
    projected = sequence.astype(dtype) @ self.kernel_input[...].astype(dtype)
    projected += self.bias_input[...].astype(dtype).reshape(1, 1, -1)
    bias_hidden = self.bias_hidden[...].astype(dtype).reshape(1, -1)
    update: Callable = {"lstm": _lstm_update, "gru": _gru_update}[self.cell]

    def step(state: tuple, from_input: jax.Array) -> tuple[tuple, None]:
      from_hidden = state[0] @ kernel_hidden + bias_hidden
      return update(state, from_input, from_hidden), None

    zeros = jnp.zeros((sequence.shape[0], self.features), dtype)
    (hidden, _), _ = jax.lax.scan(step, (zeros, zeros), projected.swapaxes(0, 1))
    return hidden


def _lstm_update(state: tuple, from_input: jax.Array, from_hidden: jax.Array) -> tuple:
  _, memory = state
  i, f, g, o = jnp.split(from_input + from_hidden, 4, axis=-1)
  memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(memory), memory


def _gru_update(state: tuple, from_input: jax.Array, from_hidden: jax.Array) -> tuple:
  hidden, memory = state  # the GRU has no second state; `memory` stays as it is
  input_r, input_z, input_n = jnp.split(from_input, 3, axis=-1)
  hidden_r, hidden_z, hidden_n = jnp.split(from_hidden, 3, axis=-1)
  reset = jax.nn.sigmoid(input_r + hidden_r)
  update = jax.nn.sigmoid(input_z + hidden_z)
  candidate = jnp.tanh(input_n + reset * hidden_n)
  return (1 - update) * candidate + update * hidden, memory
