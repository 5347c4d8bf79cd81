"""MagnifierNet on drawn pedestrians: a whole run without a download or an accelerator.

120 drawn people to train on, 60 others to test on, three cameras. The first run draws them, which
takes about 15 seconds on one core.

  python -m magnifier_jax.main --config=configs/synthetic.py          a few minutes on two cores
  python -m magnifier_jax.main --config=configs/synthetic.py:large    767 + 200 people, six cameras

Variants combine with commas.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "small") -> ConfigDict:
  """Returns the config of a comma-separated list of variants."""
  config = _reference()
  for name in variant.split(","):
    if name not in _VARIANTS:
      raise ValueError(
        f"configs/synthetic.py has no variant {name!r}; choose from {', '.join(_VARIANTS)}"
      )
    _VARIANTS[name](config)
  return config


def _reference() -> ConfigDict:
  """The authors' losses on a small network, with a schedule shortened for a CPU."""
  return ConfigDict(
    {
      "name": "synthetic",
      "seed": 0,
      "dtype": "float32",
      "model": {
        "backbone": "resnet18",
        "last_stride": 1,
        "stem_relu": True,
        "global_branch": True,
        "adversarial_branch": True,
        "fusion_branch": True,
        "part_segmentation": True,
        "adversarial_dim": 256,
        "fusion_dim": 256,
        "fusion_cell": "lstm",
      },
      "init": {"backbone": "none", "checkpoint": ""},
      "data": {
        "dataset": "synthetic_reid",
        "manual_dir": "data",
        "data_dir": "",
        "image_size_hw": (96, 32),
        "identities_per_batch": 8,
        "images_per_identity": 4,
        "part_label_resize": "nearest",
        "missing_part_labels": "refuse",
        "validation_people": 0,
        "pixel_mean": (123.675, 116.28, 103.53),
        "pixel_std": (58.395, 57.12, 57.375),
        "num_workers": 0,
        "augmentation": {
          "flip_probability": 0.5,
          "pad_pixels": 4,
          "erasing_probability": 0.5,
          "erasing_area": (0.02, 0.4),
          "erasing_min_aspect": 0.3,
          "erasing_part_labels": False,
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
        "diversity_start_epoch": 5,
      },
      "optimizer": {
        "learning_rate": 1e-3,
        "weight_decay": 5e-4,
        "warmup_epochs": 1,
        "warmup_factor": 0.01,
        "decay_epochs": (5,),
        "decay_factor": 0.1,
      },
      "training": {
        "num_epochs": 6,
        "steps_per_epoch": 0,
        "log_every_steps": 20,
        "keep_checkpoints": 1,
      },
      "evaluation": {
        "every_epochs": 3,
        "initial": True,
        "batch_size": 64,
        "flip": False,
        "rerank": False,
        "rerank_k1": 20,
        "rerank_k2": 6,
        "rerank_lambda": 0.3,
        "checkpoint": "latest",
        "save_embeddings": False,
        "embeddings": "",
      },
      "published": {},
      "published_source": "none: the data set is this project's own",
    }
  )


def _small(config: ConfigDict) -> None:
  config.data.dataset = "synthetic_reid/small"


def _large(config: ConfigDict) -> None:
  config.name = "synthetic_large"
  config.data.dataset = "synthetic_reid/large"


_VARIANTS = {"small": _small, "large": _large}
