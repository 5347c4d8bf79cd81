"""Convolutions without bias."""

import functools

import jax
from flax import nnx
from jax import numpy as jnp

from magnifier_jax.models.cpu import convolution as on_cpu
from magnifier_jax.models.layers import torch_default, wide_dtype_of
from magnifier_jax.models.platforms import cpu_or_default


class Conv1x1(nnx.Module):
  """A 1×1 convolution without bias."""

  def __init__(
    self,
    in_features: int,
    out_features: int,
    *,
    stride: int = 1,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    self.stride = stride
    self.dtype = dtype
    # Its kernel is kept as a matrix [C, F], under this name in every checkpoint.
    self.linear = nnx.Linear(
      in_features,
      out_features,
      use_bias=False,
      kernel_init=torch_default,
      param_dtype=wide_dtype_of(dtype),
      rngs=rngs,
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H/stride, W/stride, out_features]."""
    kernel = self.linear.kernel[...].astype(self.dtype)
    return convolve_1x1(x.astype(self.dtype), kernel, self.stride)


class Conv(nnx.Module):
  """A size × size convolution without bias, padded by size // 2 on every side."""

  def __init__(
    self,
    in_features: int,
    out_features: int,
    size: int,
    *,
    stride: int = 1,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    self.stride = stride
    self.dtype = dtype
    shape = (size, size, in_features, out_features)
    self.kernel = nnx.Param(torch_default(rngs.params(), shape, wide_dtype_of(dtype)))

  def __call__(self, x: jax.Array, sign: jax.Array | None = None) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H/stride, W/stride, out_features], times sign [out_features]."""
    kernel = self.kernel[...].astype(self.dtype)
    if sign is not None:
      kernel *= sign.astype(self.dtype).reshape(1, 1, 1, -1)
    return convolve(x.astype(self.dtype), kernel, self.stride)


def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """Convolves x [B, H, W, C] with kernel [k, k, C, F], padded by k // 2 on every side.

  Returns:
    [B, H/stride, W/stride, F].
  """
  by_library = functools.partial(_by_library, stride=stride)
  return cpu_or_default(
    x,
    kernel,
    cpu=functools.partial(on_cpu.convolve, stride=stride, by_library=by_library),
    default=by_library,
  )


def convolve_1x1(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """Convolves x [B, H, W, C] with kernel [C, F].

  Returns:
    [B, H/stride, W/stride, F].
  """
  return cpu_or_default(
    x,
    kernel,
    cpu=functools.partial(on_cpu.convolve_1x1, stride=stride),
    default=lambda x, kernel: _by_library(x, kernel[None, None], stride),
  )


def _by_library(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  padding = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((padding, padding), (padding, padding)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
