"""Convolutions, and which algorithm computes one: chosen by platform and shape, here alone."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.models.cpu import winograd
from magnifier_jax.models.cpu.computation_order import not_before
from magnifier_jax.models.layers import param_dtype_of, torch_default


class Conv1x1(nnx.Module):
  """A 1×1 convolution without bias, as a product over channels (1.3 × faster on a CPU)."""

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
    self.linear = nnx.Linear(
      in_features,
      out_features,
      use_bias=False,
      kernel_init=torch_default,
      dtype=dtype,
      param_dtype=param_dtype_of(dtype),
      rngs=rngs,
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H/stride, W/stride, out_features]."""
    x = x[:, :: self.stride, :: self.stride]
    return self.linear(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


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
    self.kernel = nnx.Param(torch_default(rngs.params(), shape, param_dtype_of(dtype)))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H/stride, W/stride, out_features]."""
    return convolve(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """Convolves x [B, H, W, C] with kernel [k, k, C, F], padded by k // 2 on every side.

  On CPUs by Winograd's algorithm where that is quicker; elsewhere the platform's library chooses.

  Returns:
    [B, H/stride, W/stride, F].
  """
  direct = functools.partial(_direct, stride=stride)
  on_cpu = winograd.convolve if _winograd_pays(x, kernel, stride, least_features=64) else direct
  return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=direct)


def _convolve_forward(
  x: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return convolve(x, kernel, stride), (x, kernel)


def _convolve_backward(
  stride: int, saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
  def direct(x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(functools.partial(_direct, stride=stride), x, kernel)[1](grad)

  def direct_on_cpu(
    x: jax.Array, kernel: jax.Array, grad: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    # Eigen wants x turned around, and XLA would do that in the forward pass: 70 MB at batch 8.
    return direct(not_before(grad, x), kernel, grad)

  # With 64 features the gradients would gain 8 %, and 16 MB at batch 8 where a step needs the most.
  pays = _winograd_pays(*saved, stride, least_features=128)
  on_cpu = winograd.gradients if pays else direct_on_cpu
  return jax.lax.platform_dependent(*saved, grad, cpu=on_cpu, default=direct)


convolve.defvjp(_convolve_forward, _convolve_backward)


def _direct(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  padding = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((padding, padding), (padding, padding)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _winograd_pays(x: jax.Array, kernel: jax.Array, stride: int, least_features: int) -> bool:
  """Whether Winograd's algorithm is quicker on a CPU, and exact enough."""
  if kernel.shape[:2] != (3, 3) or stride != 1 or x.shape[1] % 4 or x.shape[2] % 4:
    return False
  # With narrower kernels the transforms take as long as the products that they save; with few tiles
  # transforming the kernel does; bfloat16 is too coarse for them.
  tiles = x.size // x.shape[-1] // 16
  return min(kernel.shape[2:]) >= least_features and tiles >= 100 and x.dtype.itemsize >= 4
