"""A training step of a plain ResNet-50 in Flax, to compare costs with: no branch, no loss but one.

After flax's ImageNet example, at our image size, with a last stride of 1, Adam, and a classifier of
as many people.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from benchmarks.cuhk03_config import NUM_PEOPLE
from magnifier_jax.devices import mesh as mesh_lib

_STAGES = ((3, 1), (4, 2), (6, 2), (3, 1))  # blocks, stride
_WIDTH = 64


class _State(NamedTuple):
  params: Any
  batch_stats: Any
  opt_state: Any


class _Bottleneck(nn.Module):
  width: int
  stride: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      nn.BatchNorm, use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=self.dtype
    )
    residual = x
    x = nn.relu(norm()(conv(self.width, (1, 1))(x)))
    x = nn.relu(norm()(conv(self.width, (3, 3), (self.stride, self.stride), padding=1)(x)))
    x = norm()(conv(4 * self.width, (1, 1))(x))
    if residual.shape != x.shape:
      residual = conv(4 * self.width, (1, 1), (self.stride, self.stride))(residual)
      residual = norm()(residual)
    return nn.relu(x + residual)


class _ResNet50(nn.Module):
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Maps images [B, H, W, 3] uint8 to logits [B, N] float32."""
    x = (images / 255).astype(self.dtype)
    x = nn.Conv(_WIDTH, (7, 7), (2, 2), padding=3, use_bias=False, dtype=self.dtype)(x)
    x = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=self.dtype)(x)
    x = nn.max_pool(nn.relu(x), (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    for i, (blocks, stride) in enumerate(_STAGES):
      for block in range(blocks):
        x = _Bottleneck(_WIDTH * 2**i, stride if block == 0 else 1, self.dtype)(x)
    x = x.mean((1, 2))
    return nn.Dense(NUM_PEOPLE, dtype=jnp.float32)(x)


def lower_plain_step(
  images: int, image_size_hw: tuple[int, int], dtype: str, mesh: Mesh
) -> jax.stages.Lowered:
  """Traces a step as ours is: batch sharded, state replicated and donated.

  Args:
    images: of the global batch.
    image_size_hw: pixels.
    dtype: of the arithmetic; parameters are float32.
    mesh: over devices that need not exist.
  """
  network, tx = _ResNet50(jnp.dtype(dtype)), optax.adam(3.5e-4)
  image = jax.ShapeDtypeStruct((images, *image_size_hw, 3), jnp.uint8)
  person_id = jax.ShapeDtypeStruct((images,), jnp.int32)

  def init(image: jax.Array) -> _State:
    variables = network.init(jax.random.key(0), image)
    return _State(variables["params"], variables["batch_stats"], tx.init(variables["params"]))

  def step(state: _State, image: jax.Array, person_id: jax.Array) -> tuple[_State, jax.Array]:
    def loss_function(params: Any) -> tuple[jax.Array, Any]:
      variables = {"params": params, "batch_stats": state.batch_stats}
      logits, new = network.apply(variables, image, mutable=["batch_stats"])
      loss = optax.softmax_cross_entropy_with_integer_labels(logits, person_id).mean()
      return loss, new["batch_stats"]

    (loss, batch_stats), grads = jax.value_and_grad(loss_function, has_aux=True)(state.params)
    updates, opt_state = tx.update(grads, state.opt_state)
    return _State(optax.apply_updates(state.params, updates), batch_stats, opt_state), loss

  on_all, over_batch = mesh_lib.replicated(mesh), mesh_lib.batch_sharding(mesh)
  compiled = jax.jit(
    step,
    in_shardings=(on_all, over_batch, over_batch),
    out_shardings=on_all,
    donate_argnums=0,
  )
  return compiled.lower(jax.eval_shape(init, image), image, person_id)
