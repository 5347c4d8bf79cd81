"""Weights of a network without its initialisation, which takes longer to compile than to use."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def drawn_weights(init: Callable[[jax.Array], tuple[Any, Any]]) -> tuple[Any, Any]:
  """Returns parameters and statistics as `init` shapes them, of random numbers.

  Args:
    init: of `create_network`.
  """
  params, batch_stats = jax.eval_shape(init, jax.random.key(0))
  random = np.random.default_rng(0)

  def kernel(shape: jax.ShapeDtypeStruct) -> np.ndarray:
    # About as large as their inputs, so that the numbers neither vanish nor overflow.
    fan_in = max(1, int(np.prod(shape.shape[:-1])))
    return random.normal(0, fan_in**-0.5, shape.shape).astype(shape.dtype)

  statistics = jax.tree.map(lambda shape: np.ones(shape.shape, shape.dtype), batch_stats)
  return jax.tree.map(kernel, params), statistics
