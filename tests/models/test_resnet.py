"""Residual blocks: rematerialization, which changes no number."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from magnifier_jax.models.resnet import BasicBlock, Bottleneck


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
