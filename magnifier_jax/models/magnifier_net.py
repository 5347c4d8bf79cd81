"""MagnifierNet (Lan et al., BMVC 2020): a ResNet and its three branches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from magnifier_jax.config import ModelConfig
from magnifier_jax.models.adversarial_branch import AdversarialOutput, SemanticAdversarialBranch
from magnifier_jax.models.fusion_branch import FusionOutput, SemanticFusionBranch
from magnifier_jax.models.global_branch import GlobalBranch, GlobalOutput
from magnifier_jax.models.part_segmentation import PartSegmentationHead
from magnifier_jax.models.parts import resize_nearest
from magnifier_jax.models.resnet import ResidualBlock, ResNet


class MagnifierNetOutput(NamedTuple):
  """Outputs of the branches; None where the config switches one off."""

  global_branch: GlobalOutput | None
  adversarial_branch: AdversarialOutput | None
  fusion_branch: FusionOutput | None
  segmentation_logits: jax.Array | None  # [B, H/8, W/8, S]

  def embeddings(self) -> dict[str, jax.Array]:
    """Returns {branch: embedding [B, D] after its BN neck}, in the order of the whole one."""
    branches = {
      "global": self.global_branch,
      "adversarial": self.adversarial_branch,
      "fusion": self.fusion_branch,
    }
    return {name: out.embedding for name, out in branches.items() if out is not None}


class MagnifierNet(nnx.Module):
  """The network of the authors' code, or of the paper's figure, as the config says.

  Args:
    config: which backbone, branches and widths.
    num_people: N, identities of the training set.
    dtype: of the convolutions; `wide_dtype_of` says what is in at least float32.
    rngs: with a `params` stream.
  """

  def __init__(
    self, config: ModelConfig, num_people: int, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
  ):
    options = {"dtype": dtype, "rngs": rngs}
    self.dtype = dtype
    self.backbone = ResNet(
      config.backbone, last_stride=config.last_stride, stem_relu=config.stem_relu, **options
    )
    stage3, stage4 = self.backbone.stage3.features, self.backbone.stage4.features
    # NNX decides at the first assignment whether an attribute may hold a module, so once each.
    self.global_branch = (
      GlobalBranch(stage4, num_people, pooling=config.global_pooling, **options)
      if config.global_branch
      else None
    )
    self.adversarial_branch = (
      SemanticAdversarialBranch(stage3, config.adversarial_dim, num_people, **options)
      if config.adversarial_branch
      else None
    )
    self.fusion_branch = (
      SemanticFusionBranch(
        stage3, config.fusion_dim, num_people, cell=config.fusion_cell, **options
      )
      if config.fusion_branch
      else None
    )
    self.part_segmentation = (
      PartSegmentationHead(stage4, features=4 * self.backbone.width, **options)
      if config.part_segmentation
      else None
    )
    for _, module in nnx.iter_modules(self):
      if isinstance(module, ResidualBlock):
        module.rematerialize = config.rematerialize

  def __call__(
    self,
    images: jax.Array,
    part_labels: jax.Array | None = None,
    keep_mask: jax.Array | None = None,
    *,
    train: bool,
  ) -> MagnifierNetOutput:
    """Runs the network.

    Args:
      images: [B, H, W, 3], normalised.
      part_labels: [B, H/8, W/8] in 0…7 for the fusion branch; None takes the argmax of the part
        segmentation head, as evaluation does.
      keep_mask: [B, H/16, W/16], 0 on occluded parts; None occludes nothing.
      train: use the batch's statistics and update the running ones.
    """
    features = self.backbone(images.astype(self.dtype), train)
    height, width = features.stage3.shape[1:3]
    global_output = adversarial_output = fusion_output = logits = None
    if self.part_segmentation is not None:
      logits = self.part_segmentation(features.stage4, train)
    if self.global_branch is not None:
      global_output = self.global_branch(features.stage4, train)
    if self.adversarial_branch is not None:
      adversarial_output = self.adversarial_branch(features.stage3, keep_mask, train)
    if self.fusion_branch is not None:
      if part_labels is None and not train and features.stage4.shape[1:3] == (height, width):
        # Where nobody asks for all of the logits, the compiler leaves the rest of them out.
        part_labels = self.part_segmentation.on_grid(features.stage4).argmax(axis=-1)
      elif part_labels is None:
        part_labels = logits.argmax(axis=-1)
      grid_labels = resize_nearest(part_labels, height, width)
      fusion_output = self.fusion_branch(features.stage3, grid_labels, train)
    return MagnifierNetOutput(global_output, adversarial_output, fusion_output, logits)
