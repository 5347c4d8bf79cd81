"""Computations that wait for others leave values and gradients as they are."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from magnifier_jax.models.cpu.computation_order import not_before


def test_value_and_gradient_are_those_of_x_alone():
  x, other = jnp.arange(6.0).reshape(2, 3), jnp.full((4,), 7.0)
  np.testing.assert_array_equal(not_before(other, x), x)
  of_other, of_x = jax.grad(lambda a, b: (not_before(a, b) ** 2).sum(), argnums=(0, 1))(other, x)
  np.testing.assert_array_equal(of_x, 2 * x)
  np.testing.assert_array_equal(of_other, 0)


def test_scalars_wait_too():
  assert not_before(jnp.float32(3), jnp.float32(2)) == 2


def test_what_is_waited_for_may_be_infinite():
  x = jnp.arange(3.0)
  for other in (jnp.inf, -jnp.inf, jnp.nan):
    np.testing.assert_array_equal(not_before(jnp.float32(other), x), x)


def test_the_compiler_cannot_leave_it_out():
  lowered = jax.jit(lambda other, x: not_before(other, x) * 2).lower(jnp.ones(3), jnp.ones(2))
  text = lowered.compile().as_text()
  assert re.search(r"ROOT .* fusion\(.*other.*x.*\)|ROOT .* fusion\(.*x.*other.*\)", text)
