"""What XLA is told about the programs on a mesh."""

import platform

import jax
import jax.numpy as jnp
import pytest

from magnifier_jax.mesh import compiler_options, data_mesh


def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
  layout = ("NHWC", "HWIO", "NHWC")
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere XLA's defaults stay")
def test_float32_convolutions_are_not_ynnpacks():
  x, kernel = jnp.ones((8, 32, 32, 64)), jnp.ones((3, 3, 64, 64))
  options = compiler_options(data_mesh(), jnp.dtype("float32"))
  by_default, by_us = (
    jax.jit(convolution, compiler_options=chosen).lower(x, kernel).compile().as_text()
    for chosen in ({}, options)
  )
  assert "ynn_fusion" in by_default
  assert "ynn_fusion" not in by_us


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_dtypes_keep_xlas_defaults(dtype: str):
  assert compiler_options(data_mesh(), jnp.dtype(dtype)) == {}
