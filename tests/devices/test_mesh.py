"""What XLA is told about the programs on a mesh."""

import platform
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from magnifier_jax.devices.mesh import compiler_options, data_mesh, options_to_run_once

ON_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere XLA's defaults stay")

COMPILES_AS_USERS_DO = True  # see conftest.py


def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
  layout = ("NHWC", "HWIO", "NHWC")
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def compiled(function: Callable, shapes: list[tuple[int, ...]], options: dict[str, str]) -> str:
  inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return jax.jit(function, compiler_options=options).lower(*inputs).compile().as_text()


@ON_X86
@pytest.mark.parametrize("train", [True, False])
def test_float32_convolutions_are_not_ynnpacks(train: bool):
  shapes = [(8, 32, 32, 64), (3, 3, 64, 64)]
  options = compiler_options(data_mesh(), jnp.dtype("float32"), train=train)
  assert "ynn_fusion" in compiled(convolution, shapes, {})
  assert "ynn_fusion" not in compiled(convolution, shapes, options)


@ON_X86
@pytest.mark.parametrize("train", [True, False])
def test_float32_products_are_ynnpacks_in_training_only(train: bool):
  options = compiler_options(data_mesh(), jnp.dtype("float32"), train=train)
  text = compiled(jnp.matmul, [(256, 256), (256, 256)], options)
  assert ("ynn_fusion" in text) == train


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_dtypes_keep_xlas_defaults(dtype: str):
  assert compiler_options(data_mesh(), jnp.dtype(dtype), train=True) == {}


def test_a_program_that_runs_once_draws_the_same_bits():
  def draw() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (64, 64))

  options = options_to_run_once(data_mesh())
  assert options
  drawn = jax.jit(draw, compiler_options=options)()
  assert (drawn == jax.jit(draw)()).all()
