"""The frozen, validated view of a config file."""

from magnifier_jax.config.building import ConfigError
from magnifier_jax.config.fields import (
  AugmentationConfig,
  Config,
  DataConfig,
  EvaluationConfig,
  LossConfig,
  ModelConfig,
  OcclusionConfig,
  OptimizerConfig,
  check_field,
  check_pixel_scale,
)

__all__ = [
  "AugmentationConfig",
  "Config",
  "ConfigError",
  "DataConfig",
  "EvaluationConfig",
  "LossConfig",
  "ModelConfig",
  "OcclusionConfig",
  "OptimizerConfig",
  "check_field",
  "check_pixel_scale",
]
