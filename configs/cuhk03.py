r"""MagnifierNet on CUHK03-NP, new protocol: 767 people to train on, 700 to test on.

Published by the authors (labeled, ImageNet weights): rank-1 82.4, mAP 79.6. `published.toml` has
their whole table.

  python -m magnifier_jax.main --config=configs/cuhk03.py            labeled boxes, the code
  python -m magnifier_jax.main --config=configs/cuhk03.py:detected   detected boxes
  python -m magnifier_jax.main --config=configs/cuhk03.py:authors    the code, in every setting
  python -m magnifier_jax.main --config=configs/cuhk03.py:paper      the paper's figure
  python -m magnifier_jax.main --config=configs/cuhk03.py:small      ResNet-18 at 128 × 64, for CPUs
  python -m magnifier_jax.main --config=configs/cuhk03.py:strong     our recipe, not the authors'
  python -m magnifier_jax.main --config=configs/cuhk03.py:pod        256 images a batch, for 8 chips
  python -m magnifier_jax.main --config=configs/cuhk03.py:large_pod  1,024, for 64 chips or more

The rows of the published table, from the weakest on, are the variants `baseline`,
`part_segmentation`, `adversarial`, `fusion`, `no_diversity` and `all`, which is the default;
`python -m magnifier_jax.tools.ablate` trains several of them.

Variants combine with commas: `:detected,small`, `:strong,small`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ml_collections import ConfigDict


def get_config(variant: str = "labeled") -> ConfigDict:
  """Returns the config of a comma-separated list of variants."""
  return with_variants(_defaults(), variant, VARIANTS, __file__)


def with_variants(
  config: ConfigDict, variant: str, variants: Mapping[str, Callable[[ConfigDict], None]], file: str
) -> ConfigDict:
  """Returns a config as a comma-separated list of the variants of a config file changes it."""
  for name in variant.split(","):
    if name not in variants:
      raise ValueError(
        f"{Path(file).name} has no variant {name!r}; choose from {', '.join(variants)}"
      )
    variants[name](config)
  return config


def _defaults() -> ConfigDict:
  """The authors' code, except for what `_authors` changes."""
  return ConfigDict(
    {
      "name": "cuhk03",
      "seed": 0,
      "dtype": "float32",
      "model": {
        "backbone": "resnet50",
        "last_stride": 1,
        "stem_relu": False,
        "global_branch": True,
        "adversarial_branch": True,
        "fusion_branch": True,
        "part_segmentation": True,
        "global_pooling": "average",
        "adversarial_dim": 1024,
        "fusion_dim": 1024,
        "fusion_cell": "lstm",
        "rematerialize": False,
      },
      "init": {"backbone": "imagenet", "checkpoint": ""},
      "data": {
        "dataset": "cuhk03_np/labeled",
        "manual_dir": "data",
        "data_dir": "",
        "image_size_hw": (384, 192),
        "identities_per_batch": 16,
        "images_per_identity": 4,
        "part_label_resize": "nearest",
        "mixing": "proportional",
        "missing_part_labels": "refuse",
        "validation_people": 0,
        "pixel_mean": (123.675, 116.28, 103.53),
        "pixel_std": (58.395, 57.12, 57.375),
        "num_workers": 0,
        "augmentation": {
          "flip_probability": 0.5,
          "pad_pixels": 10,
          "erasing_probability": 0.5,
          "erasing_area": (0.02, 0.4),
          "erasing_min_aspect": 0.3,
          "erasing_part_labels": False,
          "brightness": 0.0,
          "contrast": 0.0,
          "saturation": 0.0,
        },
        "occlusion": {
          "upper_parts": 2,
          "lower_parts": 1,
          "keep_background": True,
          "per_image": False,
        },
      },
      "loss": {
        "label_smoothing": 0.1,
        "triplet_margin": 0.3,
        "global_weight": 1.0,
        "segmentation_weight": 2.0,
        "adversarial_weight": 1.0,
        "adversarial_triplet": False,
        "fusion_weight": 1.0,
        "part_id_weight": 0.0125,
        "diversity_weight": 0.01,
        "diversity_start_epoch": 561,
      },
      "optimizer": {
        "learning_rate": 3.5e-4,
        "weight_decay": 5e-4,
        "schedule": "step",
        "warmup_epochs": 10,
        "warmup_factor": 0.01,
        "decay_epochs": (40,),
        "decay_factor": 0.1,
        "ema_decay": 0.0,
      },
      "training": {
        "num_epochs": 600,
        "steps_per_epoch": 0,
        "log_every_steps": 20,
        "keep_checkpoints": 2,
      },
      "evaluation": {
        "every_epochs": 20,
        "initial": False,
        "batch_size": 64,
        "flip": False,
        "rerank": False,
        "rerank_k1": 20,
        "rerank_k2": 6,
        "rerank_lambda": 0.3,
        "camera_rule": "cross_camera",
        "single_shot_draws": 10,
        "occlude": "none",
        "occlude_bottom": (0.1, 0.2, 0.3, 0.4, 0.5),
        "occlude_mask": "predicted",
        "occlude_fill": "mean",
        "occlude_seed": 0,
        "checkpoint": "latest",
        "save_embeddings": False,
        "embeddings": "",
        "save_ranking": 0,
      },
    }
  )


def _labeled(config: ConfigDict) -> None:
  config.data.dataset = "cuhk03_np/labeled"


def _detected(config: ConfigDict) -> None:
  config.name += "_detected"
  config.data.dataset = "cuhk03_np/detected"


def _authors(config: ConfigDict) -> None:
  """All settings of the authors' code: reports and comparisons say where a run differs from these.

  Their bilinear resize invents part labels where two parts meet, so it is not the default.
  """
  config.name += "_authors"
  config.data.part_label_resize = "bilinear"


def _paper(config: ConfigDict) -> None:
  """The figure of the paper where it differs from the authors' code."""
  config.name += "_paper"
  config.model.stem_relu = True
  config.model.fusion_cell = "gru"
  config.loss.adversarial_triplet = True
  config.data.occlusion.keep_background = False
  config.data.occlusion.per_image = True


def _baseline(config: ConfigDict) -> None:
  """The global branch alone."""
  config.name += "_baseline"
  config.model.update(adversarial_branch=False, fusion_branch=False, part_segmentation=False)


def _part_segmentation(config: ConfigDict) -> None:
  """The global branch and the part segmentation head, which shares the backbone with it."""
  config.name += "_part_segmentation"
  config.model.update(adversarial_branch=False, fusion_branch=False)


def _adversarial(config: ConfigDict) -> None:
  """All but the fusion branch."""
  config.name += "_adversarial"
  config.model.fusion_branch = False


def _fusion(config: ConfigDict) -> None:
  """All but the adversarial branch, without the diversity loss, which is a row of its own."""
  config.name += "_fusion"
  config.model.adversarial_branch = False
  config.loss.diversity_weight = 0.0


def _no_diversity(config: ConfigDict) -> None:
  """All branches, without the diversity loss."""
  config.name += "_no_diversity"
  config.loss.diversity_weight = 0.0


def _small(config: ConfigDict) -> None:
  """About 14 minutes of CPU time, from random weights."""
  config.name += "_small"
  config.model.backbone = "resnet18"
  config.model.stem_relu = True  # no weights that were trained without it
  config.init.backbone = "none"
  config.model.adversarial_dim = 256
  config.model.fusion_dim = 256
  config.data.image_size_hw = (128, 64)
  config.data.identities_per_batch //= 2
  config.data.augmentation.pad_pixels = 4
  # Random weights and few updates want a larger rate than a pre-trained network.
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup_epochs = 1
  config.optimizer.decay_epochs = (7,)
  config.training.num_epochs = 8
  config.loss.diversity_start_epoch = 7
  config.evaluation.every_epochs = 4
  config.evaluation.initial = True


def _strong(config: ConfigDict) -> None:
  """Our recipe, not the authors' or the paper's: what helped `small`, see docs/results.md."""
  config.name += "_strong"
  config.optimizer.schedule = "cosine"
  config.model.global_pooling = "gem"
  config.data.identities_per_batch *= 2
  config.data.images_per_identity = 2


def _pod(config: ConfigDict) -> None:
  """256 images a batch, for 8 chips or GPUs; advice that nobody has trained with yet."""
  config.name += "_pod"
  _enlarge_batch(config, 4)


def _large_pod(config: ConfigDict) -> None:
  """1,024 images a batch, for 64 chips or more; advice that nobody has trained with yet."""
  config.name += "_large_pod"
  _enlarge_batch(config, 16)


def _enlarge_batch(config: ConfigDict, times: int) -> None:
  """More people a batch; Adam's rate grows with the root (Malladi et al., NeurIPS 2022).

  An epoch has fewer updates, so the warm-up, which counts in epochs, is longer.
  """
  root = int(times**0.5)
  config.data.identities_per_batch *= times
  config.evaluation.batch_size *= times
  config.optimizer.learning_rate *= root
  config.optimizer.warmup_epochs *= root


# What the network consists of and how it is trained; other data sets have these too.
NETWORK_VARIANTS = {
  "baseline": _baseline,
  "part_segmentation": _part_segmentation,
  "adversarial": _adversarial,
  "fusion": _fusion,
  "no_diversity": _no_diversity,
  "all": lambda config: None,
  "authors": _authors,
  "paper": _paper,
  "small": _small,
  "strong": _strong,
  "pod": _pod,
  "large_pod": _large_pod,
}
VARIANTS = {"labeled": _labeled, "detected": _detected} | NETWORK_VARIANTS
