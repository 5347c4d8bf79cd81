"""A recurrent layer as a loop: unrolled, it would only take longer to compile."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def recur(update: Callable, projected: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  """Returns the last hidden state [B, H].

  Args:
    update: (state, from_input, from_hidden) → state; a state is two arrays, the hidden one first.
    projected: [S, B, G] what each step's input gives to its gates.
    kernel: [H, G] from the hidden state to the gates.
    bias: [1, G] of that product.
  """

  def step(state: tuple, from_input: jax.Array) -> tuple[tuple, None]:
    return update(state, from_input, state[0] @ kernel + bias), None

  zeros = jnp.zeros((projected.shape[1], kernel.shape[0]), kernel.dtype)
  (hidden, _), _ = jax.lax.scan(step, (zeros, zeros), projected)
  return hidden
