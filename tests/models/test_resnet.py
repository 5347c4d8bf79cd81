"""Residual blocks: sums that are computed once, and rematerialization, which changes no number."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from magnifier_jax.models.resnet import BasicBlock, Bottleneck, relu_of_sum


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("block_type", [BasicBlock, Bottleneck])
def test_rematerialized_block_has_the_same_value_gradient_and_statistics(block_type: type):
  block = block_type(8, 4, stride=2, dtype=jnp.float64, rngs=nnx.Rngs(params=0))
  images = jax.random.normal(jax.random.key(1), (4, 6, 4, 8), jnp.float64)

  def run(rematerialize: bool) -> Any:
    block.rematerialize = rematerialize
    graphdef, params, stats = nnx.split(block, nnx.Param, nnx.BatchStat)

    def loss(params: Any, images: jax.Array) -> tuple[jax.Array, Any]:
      model = nnx.merge(graphdef, params, stats, copy=True)
      value = jnp.square(model(images, train=True)).sum()
      return value, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, new_stats), (of_params, of_images) = jax.jit(gradient)(params, images)
    return value, new_stats, nnx.to_pure_dict(of_params), of_images

  kept, rematerialized = run(False), run(True)
  assert kept[1]["bn1"]["mean"].any()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), kept, rematerialized
  )


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
