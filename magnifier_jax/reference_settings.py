"""The settings of the authors' code, and where a run differs from them."""

from magnifier_jax.config import Config

# From the authors' configuration of CUHK03-NP labeled; `configs/cuhk03.py` documents the fields.
_AUTHORS = {
  "model.backbone": "resnet50",
  "model.last_stride": 1,
  "model.stem_relu": False,
  "model.global_branch": True,
  "model.adversarial_branch": True,
  "model.fusion_branch": True,
  "model.part_segmentation": True,
  "model.adversarial_dim": 1024,
  "model.fusion_dim": 1024,
  "model.fusion_cell": "lstm",
  "init.backbone": "imagenet",
  "data.image_size_hw": (384, 192),
  "data.identities_per_batch": 16,
  "data.images_per_identity": 4,
  "data.part_label_resize": "bilinear",
  "data.augmentation.erasing_part_labels": False,
  "data.occlusion.upper_parts": 2,
  "data.occlusion.lower_parts": 1,
  "data.occlusion.keep_background": True,
  "data.occlusion.per_image": False,
  "loss.adversarial_triplet": False,
  "loss.diversity_weight": 0.01,
  "loss.diversity_start_epoch": 561,
  "optimizer.learning_rate": 3.5e-4,
  "optimizer.warmup_epochs": 10,
  "optimizer.decay_epochs": (40,),
  "training.num_epochs": 600,
}


def differences_from_reference(config: Config) -> list[str]:
  """Returns 'field: value here (value there)' for each setting that is not the authors'."""
  differences = []
  for name, theirs in _AUTHORS.items():
    ours = config
    for field in name.split("."):
      ours = getattr(ours, field)
    if ours != theirs:
      differences.append(f"{name}: {ours} (the authors: {theirs})")
  return differences
