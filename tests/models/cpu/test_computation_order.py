"""Computations that wait for others, or are done once, give what they would give anyway."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from magnifier_jax.models.cpu.computation_order import not_before, relu_of_sum


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
  text = jax.jit(not_before).lower(jnp.ones(3), jnp.ones(2)).compile().as_text()
  (operands,) = re.findall(r"ROOT \S+ = \S+ fusion\(([^)]*)\)", text)
  assert operands.count("%") == 2


def test_relu_of_a_sum_and_its_gradient():
  x, residual = jnp.array([-2.0, -1.0, 1.0, 3.0, jnp.nan]), jnp.array([1.0, 1.0, 1.0, -1.0, 1.0])
  np.testing.assert_array_equal(relu_of_sum(x, residual), [0, 0, 2, 2, jnp.nan])
  gradient = jax.grad(lambda x: relu_of_sum(x, residual)[:4].sum())(x)
  np.testing.assert_array_equal(gradient[:4], [0, 0, 1, 1])


def test_no_sum_is_computed_from_those_before_it():
  def chain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    for _ in range(5):
      x = relu_of_sum(x @ kernel, x)
    return x

  square = jnp.ones((64, 64))
  program = jax.jit(chain).lower(square, square).compile().as_text()
  operands = [text.count("%") for text in re.findall(r" fusion\(([^)]*)\)", program)]
  assert max(operands) == 2
