"""Layers with PyTorch's semantics: initialisation, batch statistics, vector BN and LSTM cells."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers

from magnifier_jax.models.cpu import recurrence as on_cpu
from magnifier_jax.models.platforms import cpu_or_default

# U(±1/√fan_in), the default of PyTorch's convolutions and linear layers.
torch_default = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
tiny_normal = initializers.normal(stddev=1e-3)


def wide_dtype_of(dtype: jnp.dtype) -> jnp.dtype:
  """Returns the dtype of what a network in `dtype` must not round to bfloat16: at least float32.

  - Parameters and statistics.
  - All that comes after the pooling. A BN neck takes away what people have in common, and what
    rounding did to them stays.
  """
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
    self.scale = nnx.Param(jnp.ones(shape, wide_dtype_of(dtype)))
    self.bias = nnx.Param(jnp.zeros(shape, wide_dtype_of(dtype)))
    self.mean = nnx.BatchStat(jnp.zeros(shape, wide_dtype_of(dtype)))
    self.var = nnx.BatchStat(jnp.ones(shape, wide_dtype_of(dtype)))

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Normalises x [..., *shape]; in training by its own statistics, which update the running."""
    scale, bias = self.scale[...], self.bias[...]
    if train:
      normalized, mean, var = _normalize_by_batch(x, scale, bias, self.epsilon)
      self._update_statistics(mean, var, x.size // mean.size)
    else:
      normalized = _normalize(x, scale, bias, self.mean[...], self.var[...], self.epsilon)
    return normalized.astype(self.dtype)

  def of_pooled(self, x: jax.Array, pooled: jax.Array, sign: jax.Array, train: bool) -> jax.Array:
    """Normalises the maxima of windows of x, as if x had been normalised before the pooling.

    A maximum is one under any rising function, and where the scale is not negative, normalising
    rises. Fewer pixels are normalised, and fewer summed up for the gradient.

    Args:
      x: [B, H, W, C], whose statistics count, with the sign that makes `sign · scale` ≥ 0.
      pooled: [B, h, w, C], maxima of x.
      sign: [C], what x is multiplied by.
      train: as in `__call__`.
    """
    scale, bias = sign * self.scale[...], self.bias[...]
    if train:
      normalized, mean, var = _normalize_by_batch_of(x, pooled, scale, bias, self.epsilon)
      self._update_statistics(sign * mean, var, x.size // mean.size)
    else:
      mean, var = sign * self.mean[...], self.var[...]
      normalized = _normalize(pooled, scale, bias, mean, var, self.epsilon)
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

  The gradient is two more sums, fewer than JAX's. None flows through the statistics.
  """
  mean, var = _statistics(x, scale)
  return _normalize(x.astype(scale.dtype), scale, bias, mean, var, epsilon), mean, var


def _statistics(x: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns mean and variance of a batch.

  The variance is E[x²] − E[x]²: sums over x, where x − E[x] would be an array of its own on a CPU.
  """
  axes = _batch_axes(x, scale)
  x = x.astype(scale.dtype)
  mean = x.mean(axes)
  return mean, jnp.maximum(jnp.square(x).mean(axes) - jnp.square(mean), 0)


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
  dtype = x.dtype
  x = x.astype(scale.dtype)
  count = x.size // mean.size
  of_grad, of_x, offset, grad_scale, grad_bias = _gradient(
    grad, x, scale, mean, var, epsilon, count
  )
  grad_x = grad * _expand(of_grad, x) - x * _expand(of_x, x) + _expand(offset, x)
  return grad_x.astype(dtype), grad_scale, grad_bias


def _gradient(
  grad: jax.Array,
  x: jax.Array,
  scale: jax.Array,
  mean: jax.Array,
  var: jax.Array,
  epsilon: float,
  count: int,
) -> tuple[jax.Array, ...]:
  """Returns the factors of grad and x and the constant in x's gradient, and scale's and bias's.

  scale / std · (grad − E[grad] − x̂ E[grad · x̂]) is a product with grad, one with x and a sum.
  """
  axes = _batch_axes(x, scale)
  inverse_std = jax.lax.rsqrt(var + epsilon)
  grad_bias = grad.sum(axes)
  grad_scale = ((grad * x).sum(axes) - mean * grad_bias) * inverse_std
  of_grad = scale * inverse_std
  of_x = of_grad * inverse_std * grad_scale / count
  offset = mean * of_x - of_grad * grad_bias / count
  return of_grad, of_x, offset, grad_scale, grad_bias


_normalize_by_batch.defvjp(_normalize_forward, _normalize_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalize_by_batch_of(
  x: jax.Array, pooled: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns `pooled` normalised by the statistics of x, and these, as `_normalize_by_batch`."""
  mean, var = _statistics(x, scale)
  return _normalize(pooled.astype(scale.dtype), scale, bias, mean, var, epsilon), mean, var


def _normalize_of_forward(
  x: jax.Array, pooled: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple, tuple]:
  normalized, mean, var = _normalize_by_batch_of(x, pooled, scale, bias, epsilon)
  return (normalized, mean, var), (x, pooled, scale, mean, var)


def _normalize_of_backward(
  epsilon: float, saved: tuple, grads: tuple
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Sums over `pooled`: pixels of x that are not maxima have no gradient but the statistics'."""
  x, pooled, scale, mean, var = saved
  grad, *_ = grads
  wide = pooled.astype(scale.dtype)
  count = x.size // mean.size
  of_grad, of_x, offset, grad_scale, grad_bias = _gradient(
    grad, wide, scale, mean, var, epsilon, count
  )
  grad_x = _expand(offset, x) - x.astype(scale.dtype) * _expand(of_x, x)
  grad_pooled = grad * _expand(of_grad, grad)
  return grad_x.astype(x.dtype), grad_pooled.astype(pooled.dtype), grad_scale, grad_bias


_normalize_by_batch_of.defvjp(_normalize_of_forward, _normalize_of_backward)


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
    param_dtype=wide_dtype_of(dtype),
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
      values = jax.random.uniform(rngs.params(), shape, wide_dtype_of(dtype), -bound, bound)
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
    return recur(projected.swapaxes(0, 1), kernel_hidden, bias_hidden, self.cell)


def recur(projected: jax.Array, kernel: jax.Array, bias: jax.Array, cell: str) -> jax.Array:
  """Returns the last hidden state [B, H] of a recurrent layer.

  Args:
    projected: [S, B, G] what each step's input gives to its gates.
    kernel: [H, G] from the hidden state to the gates.
    bias: [1, G] of that product.
    cell: 'lstm' or 'gru'.
  """
  update: Callable = {"lstm": _lstm_update, "gru": _gru_update}[cell]
  return cpu_or_default(
    projected,
    kernel,
    bias,
    cpu=functools.partial(on_cpu.recur, update),
    default=functools.partial(_unrolled, update),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _unrolled(
  update: Callable, projected: jax.Array, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
  """Recurs step by step without a loop; the sequence is short.

  The kernel's gradient is one product over all steps, in place of the sum of one a step.
  """
  offsets = jnp.broadcast_to(bias, projected.shape)
  return _steps(update, kernel, projected, offsets)[0]


def _steps(
  update: Callable, kernel: jax.Array, projected: jax.Array, offsets: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the last hidden state [B, H], and those before each step [S, B, H]."""
  zeros = jnp.zeros((projected.shape[1], kernel.shape[0]), kernel.dtype)
  state, before = (zeros, zeros), []
  for from_input, offset in zip(projected, offsets):
    before.append(state[0])
    state = update(state, from_input, state[0] @ kernel + offset)
  return state[0], jnp.stack(before)


def _unrolled_forward(
  update: Callable, projected: jax.Array, kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple]:
  offsets = jnp.broadcast_to(bias, projected.shape)
  steps = functools.partial(_steps, update, kernel)
  hidden, backward, before = jax.vjp(steps, projected, offsets, has_aux=True)
  return hidden, (backward, before)


def _unrolled_backward(
  update: Callable, saved: tuple, grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  backward, before = saved
  grad_projected, grad_offsets = backward(grad)
  grad_kernel = jnp.einsum("SBH,SBG->HG", before, grad_offsets)
  return grad_projected, grad_kernel, grad_offsets.sum(axis=(0, 1))[None]


_unrolled.defvjp(_unrolled_forward, _unrolled_backward)


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
