"""MagnifierNet in PyTorch: the opponent of the speed benchmarks.

The same network, losses and optimiser as `magnifier_jax`, with the parameter names of the authors'
checkpoints, and every exact advantage that PyTorch has to offer as an option. It needs PyTorch
and the config, not JAX.
"""

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.pytorch_network import MagnifierNet, Output, resize_nearest
from magnifier_jax.config import Config, LossConfig
from magnifier_jax.train_state import Batch


@dataclasses.dataclass(frozen=True)
class Options:
  """How PyTorch computes; the defaults are plain float32 on a CPU.

  `tf32` lets NVIDIA cards multiply float32 matrices in TF32, as JAX does by default.
  """

  device: str = "cpu"
  dtype: torch.dtype = torch.float32  # of parameters, statistics and losses
  channels_last: bool = False
  fused_adam: bool = False
  compile_mode: Literal["default", "reduce-overhead", "max-autotune"] | None = None
  bfloat16_autocast: bool = False
  tf32: bool = False

  @property
  def memory_format(self) -> torch.memory_format:
    """Of images, feature maps and kernels."""
    return torch.channels_last if self.channels_last else torch.contiguous_format


def _wide(x: Tensor) -> Tensor:
  return x.to(torch.promote_types(x.dtype, torch.float32))


def batch_hard_triplet_loss(features: Tensor, person_id: Tensor, margin: float) -> Tensor:
  """Batch-hard triplet loss on Euclidean distances of features [B, D] (Hermans et al., 2017)."""
  norms = features.square().sum(1)
  squared = torch.addmm(norms[:, None] + norms[None, :], features, features.T, alpha=-2)
  distances = squared.clamp_min(1e-12).sqrt()
  same = person_id[:, None] == person_id[None, :]
  hardest_positive = distances.masked_fill(~same, -torch.inf).amax(1)
  nearest_negative = distances.masked_fill(same, torch.inf).amin(1)
  return F.relu(hardest_positive - nearest_negative + margin).mean()


def semantic_diversity_loss(part_features: Tensor) -> Tensor:
  """Mean cosine similarity over the pairs of parts [B, S, C], where positive."""
  unit = F.normalize(part_features, dim=2)
  num_parts = part_features.shape[1]
  # |Σᵢ uᵢ|² is the sum over all ordered pairs; the diagonal goes.
  total = unit.sum(1).square().sum(1) - unit.square().sum((1, 2))
  return F.relu(total.mean() / (num_parts * (num_parts - 1)))


def part_segmentation_loss(logits: Tensor, part_labels: Tensor) -> Tensor:
  """Cross-entropy of logits [B, S, h, w], averaged by class, then over the classes present."""
  parts = torch.arange(logits.shape[1], device=logits.device)
  pixels = (part_labels.flatten()[:, None] == parts).sum(0)
  weight = pixels.clamp_min(1).to(logits.dtype).reciprocal()
  loss = F.cross_entropy(logits, part_labels, weight=weight, reduction="sum")
  return loss / (pixels > 0).sum()


def loss_terms(output: Output, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
  """Returns every loss by its name in `magnifier_jax.train_step.LossTerms`; `total` is weighted.

  The diversity loss always counts: its cost is the benchmark's concern, not its schedule.
  """
  output = Output(*(None if x is None else _wide(x) for x in output))
  person_id = batch.person_id
  terms = {}
  total = 0.0
  if output.global_logits is not None:
    terms["global_id"] = _id_loss(output.global_logits, person_id, config)
    terms["global_triplet"] = _triplet_loss(output.global_features, person_id, config)
    total += config.global_weight * (terms["global_id"] + terms["global_triplet"])
  if output.adversarial_logits is not None:
    terms["adversarial_id"] = weighted = _id_loss(output.adversarial_logits, person_id, config)
    terms["adversarial_beta"] = output.adversarial_beta
    if config.adversarial_triplet:
      terms["adversarial_triplet"] = _triplet_loss(output.adversarial_features, person_id, config)
      weighted = weighted + terms["adversarial_triplet"]
    total += config.adversarial_weight * output.adversarial_beta * weighted
  if output.fusion_logits is not None:
    terms["fusion_id"] = _id_loss(output.fusion_logits, person_id, config)
    terms["fusion_triplet"] = _triplet_loss(output.fusion_features, person_id, config)
    terms["part_id"] = _part_id_loss(output.part_logits, person_id, config)
    terms["part_beta"] = output.part_beta
    terms["diversity"] = semantic_diversity_loss(output.part_features)
    total += config.fusion_weight * (terms["fusion_id"] + terms["fusion_triplet"])
    total += config.part_id_weight * (output.part_beta * terms["part_id"]).sum()
    total += config.diversity_weight * terms["diversity"]
  if (logits := output.segmentation_logits) is not None:
    labels = resize_nearest(batch.part_labels, logits.shape[2:]).long()
    terms["segmentation"] = part_segmentation_loss(logits, labels)
    total += config.segmentation_weight * terms["segmentation"]
  return terms | {"total": total}


def _id_loss(logits: Tensor, person_id: Tensor, config: LossConfig) -> Tensor:
  return F.cross_entropy(logits, person_id, label_smoothing=config.label_smoothing)


def _part_id_loss(logits: Tensor, person_id: Tensor, config: LossConfig) -> Tensor:
  """Returns the ID loss [S] of each part's logits [B, S, N]."""
  targets = person_id[:, None].expand(logits.shape[:2])
  smoothing = config.label_smoothing
  by_image = F.cross_entropy(
    logits.transpose(1, 2), targets, label_smoothing=smoothing, reduction="none"
  )
  return by_image.mean(0)


def _triplet_loss(features: Tensor, person_id: Tensor, config: LossConfig) -> Tensor:
  return batch_hard_triplet_loss(features, person_id, config.triplet_margin)


def _set_cuda_flags(options: Options) -> None:
  if torch.device(options.device).type == "cuda":
    torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = options.tf32
    torch.backends.cudnn.benchmark = True


class Twin:
  """A network on its device with its optimiser: `step` updates it, `embed` uses it.

  Args:
    config: its model, losses, learning rate and L2 decay; the schedule is left out.
    num_people: N, identities of the training set.
    options: how to compute. On CUDA they set process-wide flags: TF32 and cuDNN's autotuning.
  """

  def __init__(self, config: Config, num_people: int, options: Options):
    self.config, self.options = config, options
    _set_cuda_flags(options)
    self.network = MagnifierNet(config.model, num_people)
    self.network.to(options.device, options.dtype, memory_format=options.memory_format)
    self.optimizer = torch.optim.Adam(
      [parameter for parameter in self.network.parameters() if parameter.requires_grad],
      lr=config.optimizer.learning_rate,
      weight_decay=config.optimizer.weight_decay,
      fused=options.fused_adam or None,  # False would switch off foreach, the default on CUDA
    )
    self._mean = torch.tensor(config.data.pixel_mean, dtype=options.dtype, device=options.device)
    self._std = torch.tensor(config.data.pixel_std, dtype=options.dtype, device=options.device)
    self._loss_terms, self._embed = self._forward_and_losses, self._forward_embed
    if options.compile_mode is not None:
      self._loss_terms = torch.compile(self._loss_terms, mode=options.compile_mode)
      self._embed = torch.compile(self._embed, mode=options.compile_mode)

  def step(self, batch: Batch) -> dict[str, Tensor]:
    """Updates the network by one batch on its device; returns the losses, detached."""
    terms = self.backward(batch)
    self.optimizer.step()
    return terms

  def backward(self, batch: Batch) -> dict[str, Tensor]:
    """Leaves the gradient of the total in the parameters; returns the losses, detached."""
    self.network.train()
    self.optimizer.zero_grad()
    terms = self._loss_terms(batch)
    terms["total"].backward()
    return {name: term.detach() for name, term in terms.items()}

  @torch.inference_mode()
  def embed(self, image: Tensor) -> Tensor:
    """Returns embeddings [B, D] of uint8 images [B, H, W, 3], not normalised."""
    self.network.eval()
    return self._embed(image)

  def _forward_and_losses(self, batch: Batch) -> dict[str, Tensor]:
    with self._autocast():
      output = self.network(self._normalize(batch.image), batch.part_labels, batch.keep_mask)
    return loss_terms(output, batch, self.config.loss)

  def _forward_embed(self, image: Tensor) -> Tensor:
    with self._autocast():
      return _wide(self.network.embed(self._normalize(image)))

  def _normalize(self, image: Tensor) -> Tensor:
    normalized = (image.to(self.options.dtype) - self._mean) / self._std
    return normalized.permute(0, 3, 1, 2).contiguous(memory_format=self.options.memory_format)

  def _autocast(self) -> torch.autocast:
    device_type = torch.device(self.options.device).type
    return torch.autocast(device_type, torch.bfloat16, enabled=self.options.bfloat16_autocast)
