"""ResNet-18/34/50/101 backbones that give stage 3 and stage 4 (He et al., CVPR 2016).

ResNet-10 has one block a stage, and its narrow form an eighth of the channels: for tests and
experiments, which wait for compilers and checkpoints. Nobody offers ImageNet weights of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.models.convolution import Conv, Conv1x1
from magnifier_jax.models.cpu import computation_order, max_pooling
from magnifier_jax.models.layers import BatchNorm
from magnifier_jax.models.platforms import cpu_or_default


class ResNetFeatures(NamedTuple):
  """Feature maps of the last two stages."""

  stage3: jax.Array  # [B, H/16, W/16, C3]
  stage4: jax.Array  # [B, H/16, W/16, C4], or at /32 with a last stride of 2


class ResidualBlock(nnx.Module):
  """What the blocks share: `transform`, whose inside a gradient can keep or compute again."""

  rematerialize = False  # True: a gradient keeps the block's input only

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H/stride, W/stride, features]."""
    if not self.rematerialize:
      return self.transform(x, train)
    return nnx.remat(type(self).transform, static_argnums=2)(self, x, train)


def relu_of_sum(x: jax.Array, residual: jax.Array) -> jax.Array:
  """Returns max(x + residual, 0)."""
  return cpu_or_default(x, residual, cpu=computation_order.relu_of_sum, default=_relu_of_sum)


def _relu_of_sum(x: jax.Array, residual: jax.Array) -> jax.Array:
  return jax.nn.relu(x + residual)


class BasicBlock(ResidualBlock):
  """Two 3×3 convolutions with a residual."""

  expansion = 1

  def __init__(
    self, in_features: int, width: int, *, stride: int = 1, dtype: jnp.dtype, rngs: nnx.Rngs
  ):
    self.conv1 = Conv(in_features, width, 3, stride=stride, dtype=dtype, rngs=rngs)
    self.bn1 = BatchNorm(width, dtype=dtype)
    self.conv2 = Conv(width, width, 3, dtype=dtype, rngs=rngs)
    self.bn2 = BatchNorm(width, dtype=dtype)
    self.shortcut = _shortcut(in_features, width, stride, dtype, rngs)

  def transform(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H/stride, W/stride, width]."""
    residual = x if self.shortcut is None else self.shortcut(x, train)
    x = jax.nn.relu(self.bn1(self.conv1(x), train))
    x = self.bn2(self.conv2(x), train)
    return relu_of_sum(x, residual)


class Bottleneck(ResidualBlock):
  """1×1, 3×3 and 1×1 convolutions with a residual; the stride is on the 3×3 one."""

  expansion = 4

  def __init__(
    self, in_features: int, width: int, *, stride: int = 1, dtype: jnp.dtype, rngs: nnx.Rngs
  ):
    features = width * self.expansion
    self.conv1 = Conv1x1(in_features, width, dtype=dtype, rngs=rngs)
    self.bn1 = BatchNorm(width, dtype=dtype)
    self.conv2 = Conv(width, width, 3, stride=stride, dtype=dtype, rngs=rngs)
    self.bn2 = BatchNorm(width, dtype=dtype)
    self.conv3 = Conv1x1(width, features, dtype=dtype, rngs=rngs)
    self.bn3 = BatchNorm(features, dtype=dtype)
    self.shortcut = _shortcut(in_features, features, stride, dtype, rngs)

  def transform(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H/stride, W/stride, 4 width]."""
    residual = x if self.shortcut is None else self.shortcut(x, train)
    x = jax.nn.relu(self.bn1(self.conv1(x), train))
    x = jax.nn.relu(self.bn2(self.conv2(x), train))
    x = self.bn3(self.conv3(x), train)
    return relu_of_sum(x, residual)


class Shortcut(nnx.Module):
  """The residual's 1×1 convolution where the shape changes."""

  def __init__(
    self, in_features: int, features: int, *, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs
  ):
    self.conv = Conv1x1(in_features, features, stride=stride, dtype=dtype, rngs=rngs)
    self.bn = BatchNorm(features, dtype=dtype)

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H/stride, W/stride, features]."""
    return self.bn(self.conv(x), train)


def _shortcut(
  in_features: int, features: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs
) -> Shortcut | None:
  if stride == 1 and in_features == features:
    return None
  return Shortcut(in_features, features, stride=stride, dtype=dtype, rngs=rngs)


class Architecture(NamedTuple):
  """What tells one ResNet from another."""

  block: type[BasicBlock] | type[Bottleneck]
  stage_sizes: tuple[int, int, int, int]
  width: int = 64  # channels of the stem, and of the 3×3 convolutions of stage 1


ARCHITECTURES = {
  "resnet10": Architecture(BasicBlock, (1, 1, 1, 1)),
  "resnet10_narrow": Architecture(BasicBlock, (1, 1, 1, 1), width=8),
  "resnet18": Architecture(BasicBlock, (2, 2, 2, 2)),
  "resnet34": Architecture(BasicBlock, (3, 4, 6, 3)),
  "resnet50": Architecture(Bottleneck, (3, 4, 6, 3)),
  "resnet101": Architecture(Bottleneck, (3, 4, 23, 3)),
}


class Stage(nnx.Module):
  """A sequence of residual blocks, `block0`, `block1`, …; the first one has the stride."""

  def __init__(
    self,
    architecture: Architecture,
    index: int,
    in_features: int,
    *,
    stride: int,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    self.num_blocks = architecture.stage_sizes[index]
    width = architecture.width * 2**index
    self.features = width * architecture.block.expansion
    for i in range(self.num_blocks):
      block = architecture.block(
        in_features if i == 0 else self.features,
        width,
        stride=stride if i == 0 else 1,
        dtype=dtype,
        rngs=rngs,
      )
      setattr(self, f"block{i}", block)

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H/stride, W/stride, features]."""
    for i in range(self.num_blocks):
      x = getattr(self, f"block{i}")(x, train)
    return x


class ResNet(nnx.Module):
  """A backbone without its classifier.

  Args:
    name: a key of `ARCHITECTURES`.
    last_stride: of stage 4; 1 keeps the resolution of stage 3.
    stem_relu: a ReLU after the stem's BN. torchvision has it, the authors' code does not.
    dtype: of the arithmetic.
    rngs: with a `params` stream.
  """

  def __init__(
    self, name: str, *, last_stride: int, stem_relu: bool, dtype: jnp.dtype, rngs: nnx.Rngs
  ):
    architecture = ARCHITECTURES[name]
    self.width = features = architecture.width
    self.stem_relu = stem_relu
    self.conv1 = Conv(3, features, 7, stride=2, dtype=dtype, rngs=rngs)
    self.bn1 = BatchNorm(features, dtype=dtype)
    for index, stride in enumerate((1, 2, 2, last_stride)):
      stage = Stage(architecture, index, features, stride=stride, dtype=dtype, rngs=rngs)
      setattr(self, f"stage{index + 1}", stage)
      features = stage.features

  def __call__(self, images: jax.Array, train: bool) -> ResNetFeatures:
    """Maps normalised images [B, H, W, 3] to the feature maps of stages 3 and 4."""
    x = pooled_stem(self.conv1, self.bn1, images, relu=self.stem_relu, train=train)
    x = self.stage2(self.stage1(x, train), train)
    stage3 = self.stage3(x, train)
    return ResNetFeatures(stage3, self.stage4(stage3, train))


def pooled_stem(
  conv: Conv, bn: BatchNorm, images: jax.Array, *, relu: bool, train: bool
) -> jax.Array:
  """Maps images [B, H, W, 3] to [B, H/4, W/4, C]: convolution, BN, ReLU where wanted, max pool.

  Pooling comes first: a maximum stays one under BN, which rises where the scale is positive, and
  under ReLU. Where it is negative, the convolution's sign is turned. So a quarter of the pixels are
  normalised, and summed up for the gradient: 4 % of a training step on TPU v5e.
  """
  sign = jnp.where(bn.scale[...] < 0, -1, 1).astype(bn.scale.dtype)
  x = conv(images, sign)
  x = bn.of_pooled(x, max_pool_3x3(x), sign, train)
  return jax.nn.relu(x) if relu else x


def max_pool_3x3(x: jax.Array) -> jax.Array:
  """Pools x [B, H, W, C] with a 3×3 window, stride 2 and padding 1; H and W even.

  The gradient goes to the first of equal maxima: row by row, on CPUs column by column.
  """
  return cpu_or_default(x, cpu=max_pooling.max_pool_3x3, default=_max_pool_by_library)


def _max_pool_by_library(x: jax.Array) -> jax.Array:
  return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
