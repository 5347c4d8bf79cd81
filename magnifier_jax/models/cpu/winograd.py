"""Winograd's algorithm for 3×3 convolutions (Lavin & Gray, CVPR 2016): F(4×4, 3×3).

A tile of 4 × 4 outputs needs 6 × 6 inputs. After a linear transform of inputs and kernel the
convolution is a product for each of 36 positions, a quarter of the multiplications; so is each of
its two gradients, because what surrounds the products is linear.
"""

import jax
import jax.numpy as jnp
import numpy as np

from magnifier_jax.models.cpu.computation_order import not_before
from magnifier_jax.models.cpu.shift import shift

_TILE = 4  # outputs a side
_INPUTS = 6  # inputs a side: _TILE + 3 − 1

# Bᵀ, G and Aᵀ of the paper, for the points 0, ±1, ±2 and ∞.
_TO_INPUTS = np.array(
  [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
  ]
)
_TO_KERNEL = np.array(
  [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
  ]
)
# Of both axes at once, a small product; the transforms of inputs and outputs are quicker by axis.
# Positions are numbered by columns first, as those have them.
_TO_KERNEL_2D = np.einsum("ik,jl->jikl", _TO_KERNEL, _TO_KERNEL).reshape(_INPUTS**2, 9)
_TO_OUTPUTS = np.array(
  [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
  ]
)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves x [B, H, W, C] with kernel [3, 3, C, F], padded by 1; H and W multiples of 4.

  In float32 it is 3e-6 from the exact result, relative to its norm.

  Returns:
    [B, H, W, F].
  """
  # Otherwise all kernels of a network are transformed first, and kept for the gradient: 180 MB for
  # a ResNet-50 at batch 8.
  kernel = not_before(x, kernel)
  products = _products(_transform_inputs(x), _transform_kernel(kernel), contract=(2, 1))
  return _transform_outputs(products, x.shape)


def gradients(x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the gradients of x and of the kernel, from that of the result, [B, H, W, F]."""
  x, kernel = not_before(grad, x), not_before(grad, kernel)
  grad_products = _outputs_adjoint(grad)
  grad_kernel = _products(_transform_inputs(x), grad_products, contract=(1, 1))
  grad_inputs = _products(grad_products, _transform_kernel(kernel), contract=(2, 2))
  return _inputs_adjoint(grad_inputs, x.shape), _kernel_adjoint(grad_kernel)


def _products(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
  """Multiplies two stacks of 36 matrices over an axis of each."""
  axes = tuple((axis,) for axis in contract)
  return jax.lax.dot_general(a, b, (axes, ((0,), (0,))))


def _combine(matrix: np.ndarray, arrays: list[jax.Array]) -> list[jax.Array]:
  """Returns Σⱼ matrix[i, j] · arrays[j] for every i."""
  return [
    sum(float(factor) * array for factor, array in zip(row, arrays) if factor) for row in matrix
  ]


def _transform_inputs(x: jax.Array) -> jax.Array:
  """Maps x [B, H, W, C] to [36, tiles, C]."""
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  x = jnp.stack(_combine(_TO_INPUTS, _windows(x, axis=1)))  # [6, B, H/4, W, C]
  x = jnp.stack(_combine(_TO_INPUTS, _windows(x, axis=3)))  # [6, 6, B, H/4, W/4, C]
  return x.reshape(_INPUTS**2, -1, x.shape[-1])


def _inputs_adjoint(grad: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Maps the gradient of `_transform_inputs` to that of x."""
  batch, height, width, channels = shape
  grad = grad.reshape(_INPUTS, _INPUTS, batch, height // _TILE, width // _TILE, channels)
  grad = _overlap_add(_combine(_TO_INPUTS.T, list(grad)), axis=3)  # [6, B, H/4, W, C]
  return _overlap_add(_combine(_TO_INPUTS.T, list(grad)), axis=1)


def _transform_kernel(kernel: jax.Array) -> jax.Array:
  """Maps kernel [3, 3, C, F] to [36, C, F]."""
  return jnp.tensordot(_TO_KERNEL_2D.astype(kernel.dtype), kernel.reshape(9, *kernel.shape[2:]), 1)


def _kernel_adjoint(grad: jax.Array) -> jax.Array:
  """Maps the gradient of `_transform_kernel` to that of the kernel."""
  kernel = jnp.tensordot(_TO_KERNEL_2D.T.astype(grad.dtype), grad, 1)
  return kernel.reshape(3, 3, *grad.shape[1:])


def _transform_outputs(products: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Maps [36, tiles, F] to [B, H, W, F]."""
  batch, height, width, _ = shape
  tiles = (batch, height // _TILE, width // _TILE)
  columns = products.reshape(_INPUTS, _INPUTS, *tiles, -1)
  rows = jnp.stack(_combine(_TO_OUTPUTS, list(columns)), axis=4)  # [6, B, H/4, W/4, 4, F]
  pixels = jnp.stack(_combine(_TO_OUTPUTS, list(rows)), axis=2)  # [B, H/4, 4, W/4, 4, F]
  return pixels.reshape(batch, height, width, -1)


def _outputs_adjoint(grad: jax.Array) -> jax.Array:
  """Maps the gradient of `_transform_outputs` to that of the products."""
  batch, height, width, features = grad.shape
  grad = grad.reshape(batch, height // _TILE, _TILE, width // _TILE, _TILE, features)
  rows = jnp.stack(_combine(_TO_OUTPUTS.T, list(jnp.moveaxis(grad, 2, 0))))
  both = jnp.stack(_combine(_TO_OUTPUTS.T, list(jnp.moveaxis(rows, 4, 0))))
  return both.reshape(_INPUTS**2, -1, features)


def _windows(x: jax.Array, axis: int) -> list[jax.Array]:
  """Returns entry i of every window of 6, for each i; windows start 4 apart along the axis."""
  last = x.shape[axis] - _INPUTS
  return [jax.lax.slice_in_dim(x, i, i + last + 1, stride=_TILE, axis=axis) for i in range(_INPUTS)]


def _overlap_add(windows: list[jax.Array], axis: int) -> jax.Array:
  """Adds windows up where they lay in the padded array, and takes its padding off."""
  first, *inner, last_but_one, last = windows
  # Entries 1 to 4 of a window are its own; 0 is the 4 of the one before, 5 the 1 of the next.
  inner[0] += shift(last, 1, axis)
  last_but_one += shift(first, -1, axis)
  stacked = jnp.stack([*inner, last_but_one], axis=axis + 1)
  return stacked.reshape(*stacked.shape[:axis], -1, *stacked.shape[axis + 2 :])
