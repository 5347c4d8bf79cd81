"""What changes no number: rematerialization, and pooling before normalising."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from magnifier_jax.models.convolution import Conv
from magnifier_jax.models.layers import BatchNorm
from magnifier_jax.models.resnet import BasicBlock, Bottleneck, max_pool_3x3, pooled_stem


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


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("relu", [False, True])
def test_pooling_before_normalising_changes_nothing(relu: bool):
  random = np.random.default_rng(0)
  rngs = nnx.Rngs(params=0)
  conv, bn = Conv(3, 6, 7, stride=2, dtype=jnp.float64, rngs=rngs), BatchNorm(6, dtype=jnp.float64)
  bn.scale[...] = jnp.asarray(random.standard_normal(6))  # where it is negative, BN falls
  bn.bias[...] = jnp.asarray(random.standard_normal(6))
  assert (bn.scale[...] < 0).any()
  images = jnp.asarray(random.standard_normal((2, 32, 16, 3)))
  factors = jnp.asarray(random.standard_normal((2, 8, 4, 6)))

  def in_order(conv: Conv, bn: BatchNorm, images: jax.Array, *, relu: bool, train: bool):
    x = bn(conv(images), train)
    return max_pool_3x3(jax.nn.relu(x) if relu else x)

  def run(stem: Callable) -> tuple:
    graphdef, params, stats = nnx.split((conv, bn), nnx.Param, nnx.BatchStat)

    def loss(params: nnx.State) -> tuple[jax.Array, tuple]:
      own_conv, own_bn = nnx.merge(graphdef, params, stats, copy=True)
      trained = stem(own_conv, own_bn, images, relu=relu, train=True)
      evaluated = stem(own_conv, own_bn, images, relu=relu, train=False)
      loss = (factors * (trained + evaluated)).sum()
      return loss, (trained, evaluated, own_bn.mean[...], own_bn.var[...])

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

  ours, expected = (jax.tree.leaves(run(stem)) for stem in (pooled_stem, in_order))
  for values, theirs in zip(ours, expected, strict=True):
    np.testing.assert_allclose(values, theirs, rtol=1e-10, atol=1e-12)
