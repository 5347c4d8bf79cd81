"""The generalised mean: its value, its limits, and gradients where nothing is active."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from magnifier_jax.models.generalized_mean import GeneralizedMean

ACTIVATIONS = np.maximum(np.random.default_rng(0).normal(0.3, 1, (2, 4, 3, 5)), 0)


def pooled(x: jax.Array, power: float) -> jax.Array:
  pool = GeneralizedMean(dtype=x.dtype)
  pool.power[...] = jnp.full((1,), power)
  return pool(x)


@pytest.mark.parametrize("power", [1.0, 3.0, 6.5])
def test_value_is_numpys(power: float):
  expected = np.mean(np.maximum(ACTIVATIONS, 1e-6) ** power, axis=(1, 2)) ** (1 / power)
  found = pooled(jnp.asarray(ACTIVATIONS, jnp.float32), power)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_it_starts_at_3_between_the_average_and_the_maximum():
  pool = GeneralizedMean(dtype=jnp.float32)
  found = np.asarray(pool(jnp.asarray(ACTIVATIONS, jnp.float32)))
  np.testing.assert_array_equal(pool.power[...], [3.0])
  assert (found > ACTIVATIONS.mean(axis=(1, 2))).all()
  assert (found < ACTIVATIONS.max(axis=(1, 2))).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("power", [1.0, 3.0, 6.0])
def test_nothing_active_is_neither_nan_nor_infinite(dtype: jnp.dtype, power: float):
  graphdef, params = nnx.split(GeneralizedMean(dtype=dtype))
  params["power"][...] = jnp.full((1,), power)

  def total(params: nnx.State, x: jax.Array) -> jax.Array:
    return nnx.merge(graphdef, params)(x).sum()

  x = jnp.asarray(ACTIVATIONS, dtype).at[0].set(0)
  value, (grad_power, grad_x) = jax.value_and_grad(total, argnums=(0, 1))(params, x)
  assert value.dtype == jnp.float32
  for found in (value, *jax.tree.leaves(grad_power), grad_x):
    assert np.isfinite(np.asarray(found, np.float32)).all()
  np.testing.assert_array_equal(grad_x[0], 0)
  assert jax.tree.leaves(grad_power)[0].dtype == jnp.float32


def test_the_power_has_the_gradient_of_a_difference():
  x = jnp.asarray(ACTIVATIONS, jnp.float32)
  step = 1e-2
  numeric = (pooled(x, 3 + step).sum() - pooled(x, 3 - step).sum()) / (2 * step)
  gradient = jax.grad(lambda power: pooled(x, power).sum())(3.0)
  assert gradient > 0.1
  np.testing.assert_allclose(gradient, numeric, rtol=1e-2)
