"""The network of the PyTorch twin; module names are those of the authors' checkpoints."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.config import ModelConfig


class Output(NamedTuple):
  """What the losses need; None where the config switches a branch off."""

  global_features: Tensor | None = None  # [B, D]
  global_logits: Tensor | None = None  # [B, N]
  adversarial_features: Tensor | None = None  # [B, D]
  adversarial_logits: Tensor | None = None  # [B, N]
  adversarial_beta: Tensor | None = None  # scalar
  fusion_features: Tensor | None = None  # [B, D]
  fusion_logits: Tensor | None = None  # [B, N]
  part_features: Tensor | None = None  # [B, S, C]
  part_logits: Tensor | None = None  # [B, S, N]
  part_beta: Tensor | None = None  # [S]
  segmentation_logits: Tensor | None = None  # [B, S, H/8, W/8]


class BasicBlock(nn.Module):
  """Two 3×3 convolutions with a residual."""

  expansion = 1

  def __init__(self, in_features: int, width: int, stride: int = 1):
    super().__init__()
    self.conv1 = nn.Conv2d(in_features, width, 3, stride, padding=1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.downsample = _shortcut(in_features, width, stride)

  def forward(self, x: Tensor) -> Tensor:
    """Maps x [B, C, H, W] to [B, width, H/stride, W/stride]."""
    residual = x if self.downsample is None else self.downsample(x)
    x = F.relu(self.bn1(self.conv1(x)), inplace=True)
    x = self.bn2(self.conv2(x))
    return F.relu(x.add_(residual), inplace=True)


class Bottleneck(nn.Module):
  """1×1, 3×3 and 1×1 convolutions with a residual; the stride is on the 3×3 one."""

  expansion = 4

  def __init__(self, in_features: int, width: int, stride: int = 1):
    super().__init__()
    self.conv1 = nn.Conv2d(in_features, width, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(4 * width)
    self.downsample = _shortcut(in_features, 4 * width, stride)

  def forward(self, x: Tensor) -> Tensor:
    """Maps x [B, C, H, W] to [B, 4 width, H/stride, W/stride]."""
    residual = x if self.downsample is None else self.downsample(x)
    x = F.relu(self.bn1(self.conv1(x)), inplace=True)
    x = F.relu(self.bn2(self.conv2(x)), inplace=True)
    x = self.bn3(self.conv3(x))
    return F.relu(x.add_(residual), inplace=True)


def _shortcut(in_features: int, features: int, stride: int) -> nn.Sequential | None:
  if stride == 1 and in_features == features:
    return None
  convolution = nn.Conv2d(in_features, features, 1, stride, bias=False)
  return nn.Sequential(convolution, nn.BatchNorm2d(features))


ARCHITECTURES = {
  "resnet18": (BasicBlock, (2, 2, 2, 2)),
  "resnet34": (BasicBlock, (3, 4, 6, 3)),
  "resnet50": (Bottleneck, (3, 4, 6, 3)),
  "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
  """A backbone that gives stages 3 and 4."""

  def __init__(self, name: str, last_stride: int, stem_relu: bool):
    super().__init__()
    block, stage_sizes = ARCHITECTURES[name]
    self.stem_relu = stem_relu
    self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
    self.bn1 = nn.BatchNorm2d(64)
    features = 64
    for index, stride in enumerate((1, 2, 2, last_stride)):
      blocks = []
      for i in range(stage_sizes[index]):
        blocks.append(block(features, 64 * 2**index, stride if i == 0 else 1))
        features = 64 * 2**index * block.expansion
      setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
    self.stage3_features, self.stage4_features = features // 2, features

  def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
    """Maps images [B, 3, H, W] to stages 3 and 4."""
    x = self.bn1(self.conv1(images))
    if self.stem_relu:
      x = F.relu(x, inplace=True)
    x = F.max_pool2d(x, 3, 2, padding=1)
    stage3 = self.layer3(self.layer2(self.layer1(x)))
    return stage3, self.layer4(stage3)


def bnneck(features: int) -> nn.BatchNorm1d:
  """Returns a BatchNorm over vectors whose bias is frozen."""
  neck = nn.BatchNorm1d(features)
  neck.bias.requires_grad_(False)
  return neck


class AdversarialBranch(nn.Module):
  """Bottleneck → × keep mask → max pool → 1×1 → BN neck."""

  def __init__(self, in_features: int, features: int):
    super().__init__()
    self.bottle = Bottleneck(in_features, in_features // 4)
    self.dim_reducer = nn.Conv2d(in_features, features, 1, bias=False)
    self.mask_bn = bnneck(features)

  def forward(self, stage3: Tensor, keep_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns features and embedding [B, D] of stage3 [B, C, h, w]."""
    x = self.bottle(stage3)
    if keep_mask is not None:
      x = x * keep_mask[:, None].to(x.dtype)
    features = self.dim_reducer(F.adaptive_max_pool2d(x, 1)).flatten(1)
    return features, self.mask_bn(features)


class FusionBranch(nn.Module):
  """Bottleneck → part-masked max pools → LSTM or GRU over the parts → BN neck."""

  def __init__(self, in_features: int, features: int, cell: str):
    super().__init__()
    self.bottle = Bottleneck(in_features, in_features // 4)
    self.part_bns = nn.ModuleList(bnneck(in_features) for _ in range(NUM_PARTS))
    recurrent = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
    self.lstm = recurrent(in_features, features, batch_first=True)
    self.combine_bn = bnneck(features)

  def forward(self, stage3: Tensor, part_labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns features and embedding [B, D] and part features [B, S, C]."""
    part_features = part_max_pool(self.bottle(stage3), part_labels)
    features = self.lstm(part_features)[0][:, -1]
    return features, self.combine_bn(features), part_features


def part_max_pool(features: Tensor, part_labels: Tensor) -> Tensor:
  """Pools features [B, C, h, w] ≥ 0 over each part of part_labels [B, h, w]; [B, S, C].

  An absent part gives zeros and no gradient. Only the positions of the maxima are kept for the
  gradient, not one masked copy of the feature map for each part.
  """
  pixels = features.permute(0, 2, 3, 1).flatten(1, 2)  # [B, hw, C]
  labels = part_labels.flatten(1)
  with torch.no_grad():
    masks = [labels == part for part in range(NUM_PARTS)]
    # −1 is below every feature, so a position outside the part never ties with a zero inside.
    indices = [torch.where(mask[..., None], pixels, -1).argmax(1) for mask in masks]
    present = torch.stack([mask.any(1) for mask in masks], 1)
  pooled = pixels.gather(1, torch.stack(indices, 1))
  return pooled * present[..., None].to(pooled.dtype)


class SegmentationHead(nn.Module):
  """3×3 transposed convolution ×2 up → BN → ReLU → 1×1."""

  def __init__(self, in_features: int, features: int = 256):
    super().__init__()
    self.deconv = nn.ConvTranspose2d(
      in_features, features, 3, stride=2, padding=1, output_padding=1, bias=False
    )
    self.bn = nn.BatchNorm2d(features)
    self.conv = nn.Conv2d(features, NUM_PARTS, 1)

  def forward(self, stage4: Tensor) -> Tensor:
    """Maps stage4 [B, C, h, w] to part logits [B, S, 2h, 2w]."""
    return self.conv(F.relu(self.bn(self.deconv(stage4)), inplace=True))


class Base(nn.Module):
  """The backbone and the branches without their classifiers; names as in the checkpoints."""

  def __init__(self, config: ModelConfig):
    super().__init__()
    self.model = ResNet(config.backbone, config.last_stride, config.stem_relu)
    stage3, stage4 = self.model.stage3_features, self.model.stage4_features
    self.feat_bn = self.mask = self.part = self.seg_module = None
    if config.global_branch:
      self.feat_bn = bnneck(stage4)
    if config.adversarial_branch:
      self.mask = AdversarialBranch(stage3, config.adversarial_dim)
    if config.fusion_branch:
      self.part = FusionBranch(stage3, config.fusion_dim, config.fusion_cell)
    if config.part_segmentation:
      self.seg_module = SegmentationHead(stage4)


class MagnifierNet(nn.Module):
  """The network of the authors' code, or of the paper's figure, as the config says."""

  def __init__(self, config: ModelConfig, num_people: int):
    super().__init__()
    self.base = Base(config)
    stage3, stage4 = self.base.model.stage3_features, self.base.model.stage4_features
    if config.global_branch:
      self.classifier = nn.Linear(stage4, num_people)
    if config.adversarial_branch:
      self.classifier_mask = nn.Linear(config.adversarial_dim, num_people)
    if config.fusion_branch:
      self.classifier_part = nn.ModuleList(nn.Linear(stage3, num_people) for _ in range(NUM_PARTS))
      self.classifier_anchor = nn.Linear(config.fusion_dim, num_people)
    self.apply(_initialize)

  def forward(self, images: Tensor, part_labels: Tensor, keep_mask: Tensor) -> Output:
    """Runs every branch on labelled parts.

    Args:
      images: [B, 3, H, W], normalised.
      part_labels: [B, H/8, W/8] in 0…7.
      keep_mask: [B, H/16, W/16], 0 on occluded parts.
    """
    base = self.base
    stage3, stage4 = base.model(images)
    output = {}
    if base.feat_bn is not None:
      features = _global_pool(stage4)
      output |= {
        "global_features": features,
        "global_logits": self.classifier(base.feat_bn(features)),
      }
    if base.mask is not None:
      features, embedding = base.mask(stage3, keep_mask)
      output |= {
        "adversarial_features": features,
        "adversarial_logits": self.classifier_mask(embedding),
        "adversarial_beta": torch.sigmoid(_share(keep_mask != 0, stage3.dtype)),
      }
    if base.part is not None:
      output |= self._fusion_output(stage3, resize_nearest(part_labels, stage3.shape[2:]))
    if base.seg_module is not None:
      output["segmentation_logits"] = base.seg_module(stage4)
    return Output(**output)

  def _fusion_output(self, stage3: Tensor, grid_labels: Tensor) -> dict[str, Tensor]:
    features, embedding, part_features = self.base.part(stage3, grid_labels)
    heads = zip(self.base.part.part_bns, self.classifier_part, part_features.unbind(1))
    part_logits = [classifier(neck(part)) for neck, classifier, part in heads]
    shares = [_share(grid_labels == part, stage3.dtype) for part in range(NUM_PARTS)]
    return {
      "fusion_features": features,
      "fusion_logits": self.classifier_anchor(embedding),
      "part_features": part_features,
      "part_logits": torch.stack(part_logits, 1),
      "part_beta": torch.sigmoid(torch.stack(shares)),
    }

  def embed(self, images: Tensor) -> Tensor:
    """Returns the embeddings of all branches [B, D], not normalised; parts are predicted."""
    base = self.base
    stage3, stage4 = base.model(images)
    embeddings = []
    if base.feat_bn is not None:
      embeddings.append(base.feat_bn(_global_pool(stage4)))
    if base.mask is not None:
      embeddings.append(base.mask(stage3, None)[1])
    if base.part is not None:
      part_labels = resize_nearest(base.seg_module(stage4).argmax(1), stage3.shape[2:])
      embeddings.append(base.part(stage3, part_labels)[1])
    return torch.cat(embeddings, 1)


def resize_nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
  """Resizes labels [B, h, w] to [B, *size] by nearest neighbour."""
  if labels.shape[1:] == size:
    return labels
  rows = torch.arange(size[0], device=labels.device) * labels.shape[1] // size[0]
  columns = torch.arange(size[1], device=labels.device) * labels.shape[2] // size[1]
  return labels[:, rows][:, :, columns]


def _share(mask: Tensor, dtype: torch.dtype) -> Tensor:
  return mask.mean(dtype=torch.promote_types(dtype, torch.float32))


def _global_pool(x: Tensor) -> Tensor:
  return x.mean((2, 3), dtype=torch.promote_types(x.dtype, torch.float32))


def _initialize(module: nn.Module) -> None:
  """Small weights where the reference has them; PyTorch's defaults elsewhere."""
  if isinstance(module, nn.Linear | nn.ConvTranspose2d):
    nn.init.normal_(module.weight, std=1e-3)
  if isinstance(module, nn.Linear):
    nn.init.zeros_(module.bias)
  if isinstance(module, SegmentationHead):
    nn.init.normal_(module.conv.weight, std=1e-3)
    nn.init.zeros_(module.conv.bias)
