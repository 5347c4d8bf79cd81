"""Every field of a config, with its type and its range, and what it means.

A config file builds an `ml_collections.ConfigDict` and imports nothing. Everything below `main`
sees `Config` instead: every field is known, typed and in range, or `ConfigError` names it.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from magnifier_jax.body_parts import BACKGROUND, LOWER_PARTS, PART_NAMES, UPPER_PARTS
from magnifier_jax.config.building import ConfigError, Names, Range, build, suggestion


def check_path(name: str, value: str, when_empty: str | None = None) -> None:
  """Refuses a path that says that there is none, and would become a folder of that name.

  Args:
    name: of the field.
    value: of the field.
    when_empty: what '' means; None: it means nothing.

  Raises:
    ConfigError: with the mend.
  """
  if value.lower() in ("none", "null"):
    mend = "name a folder" if when_empty is None else f"'' means {when_empty}"
    raise ConfigError(f"{name}: {value!r} is no path; {mend}, and ./{value} is one of that name")
  if not value.strip() and (value or when_empty is None):
    raise ConfigError(f"{name}: must name a folder; got {value!r}")


MISSING_PART_LABELS = ("refuse", "background", "bands")
_HIDEABLE = tuple(name for part, name in enumerate(PART_NAMES) if part != BACKGROUND)
Probability = Annotated[float, Range(0.0, 1.0)]
NonNegative = Annotated[float, Range(0.0)]
Positive = Annotated[int, Range(1)]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The network. Widths default to those of the authors' ResNet-50."""

  # The two of ResNet-10 are for tests and experiments.
  backbone: Literal["resnet10", "resnet10_narrow", "resnet18", "resnet34", "resnet50", "resnet101"]
  last_stride: Literal[1, 2]
  stem_relu: bool  # torchvision has a ReLU after the stem's BN; the authors' code has none
  global_branch: bool
  adversarial_branch: bool
  fusion_branch: bool
  part_segmentation: bool
  global_pooling: Literal["average", "gem"]  # gem: generalised mean, whose power is learnt
  adversarial_dim: Positive
  fusion_dim: Positive
  fusion_cell: Literal["lstm", "gru"]
  rematerialize: bool  # True: less memory for more time; residual blocks run again for gradients

  def __post_init__(self):
    if not (self.global_branch or self.adversarial_branch or self.fusion_branch):
      raise ConfigError("global_branch: at least one branch must be on; all three are off")
    if self.fusion_branch and not self.part_segmentation:
      raise ConfigError(
        "part_segmentation: must be True with fusion_branch, which needs predicted parts in "
        "evaluation"
      )


@dataclasses.dataclass(frozen=True)
class InitConfig:
  """The weights that a fresh run starts from; what is not read is drawn."""

  backbone: str  # 'imagenet', a file with torchvision's names, or 'none'
  checkpoint: str  # a whole network: a workdir or a file; in place of the backbone; '' is none

  def __post_init__(self):
    check_path("checkpoint", self.checkpoint, "no checkpoint")
    if not self.backbone:
      raise ConfigError("backbone: must be 'imagenet', 'none', or a file of weights; got ''")


@dataclasses.dataclass(frozen=True)
class OcclusionConfig:
  """Which parts the semantic-occluded samples lose."""

  upper_parts: Annotated[int, Range(0, len(UPPER_PARTS))]  # of head, torso, upper arm, lower arm
  lower_parts: Annotated[int, Range(0, len(LOWER_PARTS))]  # of upper leg, lower leg, foot
  keep_background: bool
  per_image: bool  # False: one draw for the whole batch


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
  """Training-time changes of an image and its part labels."""

  flip_probability: Probability
  pad_pixels: Annotated[int, Range(0)]  # zero padding on each side before the random crop
  erasing_probability: Probability
  erasing_area: Annotated[tuple[float, float], Range(0.0, 1.0)]  # share of the image, low and high
  erasing_min_aspect: Annotated[float, Range(0.01, 1.0)]  # height / width is in [r, 1 / r]
  erasing_part_labels: bool  # True: the erased rectangle becomes background in the labels too
  # Colours are multiplied by factors that are drawn from 1 − x to 1 + x for each image; 0: never.
  brightness: Probability
  contrast: Probability  # distance from the image's mean grey
  saturation: Probability  # distance from the pixel's grey

  def __post_init__(self):
    low, high = self.erasing_area
    if low > high:
      raise ConfigError(f"erasing_area: the low end {low} is above the high end {high}")

  @property
  def changes_colours(self) -> bool:
    """Whether any colour is changed."""
    return max(self.brightness, self.contrast, self.saturation) > 0


def check_pixel_scale(name: str, channels: tuple[float, ...]) -> None:
  """Checks that a mean or standard deviation of pixels is of 0…255, and not of 0…1.

  Zeros and ones alone pass: they change nothing.

  Raises:
    ConfigError: when all channels are at most 1; the message has what they should be.
  """
  if max(channels) <= 1 and not set(channels) <= {0.0, 1.0}:
    meant = ", ".join(f"{255 * value:.6g}" for value in channels)
    raise ConfigError(f"{name}: {channels} are of 0…1, but pixels are of 0…255; write ({meant})")


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """The data set and the training batch."""

  dataset: Names  # TFDS name with its config, e.g. 'cuhk03_np/labeled', or a tuple of such names
  manual_dir: str  # where the user's image folders lie
  data_dir: str  # where prepared copies are kept; '' is TFDS's own default
  image_size_hw: Annotated[tuple[int, int], Range(32)]  # pixels
  identities_per_batch: Annotated[int, Range(1)]  # P
  images_per_identity: Annotated[int, Range(1)]  # K
  part_label_resize: Literal["nearest", "bilinear"]
  mixing: Literal["proportional", "equal", "one_dataset"]  # of several data sets in the batches
  missing_part_labels: Names  # for training images without any; a tuple has one a data set
  validation_people: Annotated[int, Range(0)]  # of training, in place of the test people; 0: none
  pixel_mean: Annotated[tuple[float, float, float], Range(0.0, 255.0)]  # RGB, of 0…255
  pixel_std: Annotated[tuple[float, float, float], Range(1e-3, 255.0)]
  num_workers: Annotated[int, Range(0)]  # images decoded at once; 0 lets tf.data choose
  augmentation: AugmentationConfig
  occlusion: OcclusionConfig

  def __post_init__(self):
    for name in self.datasets:
      if self.datasets.count(name) > 1:
        raise ConfigError(f"dataset: {name!r} is listed twice; name each data set once")
    self._check_missing_part_labels()
    check_path("manual_dir", self.manual_dir)
    check_path("data_dir", self.data_dir, "TFDS's own default")
    if any(size % 32 for size in self.image_size_hw):
      raise ConfigError(
        f"image_size_hw: height and width must be multiples of 32, got {self.image_size_hw}"
      )
    check_pixel_scale("pixel_mean", self.pixel_mean)
    check_pixel_scale("pixel_std", self.pixel_std)

  def _check_missing_part_labels(self) -> None:
    rules = self.missing_part_labels
    for rule in (rules,) if isinstance(rules, str) else rules:
      if rule not in MISSING_PART_LABELS:
        raise ConfigError(
          f"missing_part_labels: must be one of {', '.join(MISSING_PART_LABELS)}; got {rule!r}"
        )
    if not isinstance(rules, str) and len(rules) != len(self.datasets):
      raise ConfigError(
        f"missing_part_labels: {len(rules)} rules for {len(self.datasets)} data sets; name one for "
        "each, or one for all"
      )

  def of(self, dataset: str) -> "DataConfig":
    """Returns the config of one data set of several, with its own rule, or of another."""
    rule = self.missing_part_labels
    if not isinstance(rule, str):
      rule = rule[self.datasets.index(dataset)]
    return dataclasses.replace(self, dataset=dataset, missing_part_labels=rule)

  @property
  def datasets(self) -> tuple[str, ...]:
    """The names of the data sets, one or several."""
    return (self.dataset,) if isinstance(self.dataset, str) else self.dataset

  @property
  def batch_size(self) -> int:
    """Images in one global training batch, P × K."""
    return self.identities_per_batch * self.images_per_identity


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weights and parameters of the losses; a weight of 0 switches the term off."""

  label_smoothing: Annotated[float, Range(0.0, 0.999)]
  triplet_margin: NonNegative
  global_weight: NonNegative  # on the global branch's ID + triplet
  segmentation_weight: NonNegative
  adversarial_weight: NonNegative  # times β, on the adversarial branch's ID
  adversarial_triplet: bool  # True: + triplet in the adversarial branch, as in the figure
  fusion_weight: NonNegative  # on the fusion branch's ID + triplet
  part_id_weight: NonNegative  # times βᵢ, on each part's ID
  diversity_weight: NonNegative
  diversity_start_epoch: Annotated[int, Range(1)]  # epochs count from 1


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Adam with L2 added to the gradient, its schedule, and the average of its weights."""

  learning_rate: Annotated[float, Range(0.0)]
  weight_decay: NonNegative
  schedule: Literal["step", "cosine"]  # after the warm-up; cosine: to 0 at the end of training
  warmup_epochs: Annotated[int, Range(0)]
  warmup_factor: Probability
  decay_epochs: Annotated[tuple[int, ...], Range(1)]  # of 'step'
  decay_factor: Annotated[float, Range(0.0, 1.0)]  # of 'step'
  # Of the weights' average, which then is the network; 0: no average.
  ema_decay: Annotated[float, Range(0.0, 0.99999)]


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """The loop."""

  num_epochs: Positive
  steps_per_epoch: Annotated[int, Range(0)]  # 0: training images // batch size
  log_every_steps: Positive
  keep_checkpoints: Positive  # newest kept, beside the best by mAP


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """When and how to evaluate."""

  every_epochs: Positive  # a checkpoint is written at the same time
  initial: bool  # True: evaluate the untrained network first
  batch_size: Positive
  flip: bool  # True: embed the mirrored image too, and add the two
  rerank: bool
  rerank_k1: Positive
  rerank_k2: Positive
  rerank_lambda: Probability
  # What a query ignores: its person's images from its own camera; its own image; or nothing, in a
  # gallery of one random image a person, as in VehicleID.
  camera_rule: Literal["cross_camera", "ignore", "single_shot"]
  single_shot_draws: Positive  # random galleries, whose mean is taken
  occlude: Names  # parts to hide in every query, one after the other: names, 'each', or 'none'
  occlude_bottom: Annotated[tuple[float, ...], Range(0.0, 1.0)]  # with it: shares of the image
  occlude_mask: Literal["predicted", "given"]  # where a part lies; given: by the part labels
  occlude_fill: Literal["mean", "noise", "patch"]  # what is seen there; patch: another query
  occlude_seed: Annotated[int, Range(0, 2**31 - 1)]  # of noise and of the choice of patches
  checkpoint: Literal["latest", "best"]  # which one --mode=evaluate takes; best is by test mAP
  save_embeddings: bool  # True: --mode=evaluate writes WORKDIR/embeddings.npz
  embeddings: str  # such a file: --mode=evaluate ranks it, without images or a network
  save_ranking: Annotated[
    int, Range(0)
  ]  # gallery images a query in WORKDIR/ranking.csv; 0: no file

  def __post_init__(self):
    check_path("embeddings", self.embeddings, "the images of the data set")
    names = (self.occlude,) if isinstance(self.occlude, str) else self.occlude
    for name in names if self.occlude not in ("none", "each") else ():
      if name not in _HIDEABLE or names.count(name) > 1:
        raise ConfigError(
          f"occlude: must be none, each, or different ones of {', '.join(_HIDEABLE)}; got {name!r}"
        )
    if self.occlude != "none" and self.camera_rule == "single_shot":
      raise ConfigError(
        "occlude: must be none with camera_rule=single_shot, which draws the queries anew"
      )

  @property
  def occluded_parts(self) -> tuple[int, ...]:
    """The numbers of the parts that are hidden, one after the other."""
    if self.occlude == "none":
      return ()
    names = (self.occlude,) if isinstance(self.occlude, str) else self.occlude
    return tuple(map(PART_NAMES.index, _HIDEABLE if names == ("each",) else names))


@dataclasses.dataclass(frozen=True)
class Config:
  """One run. `configs/` says what each file reproduces."""

  name: str
  seed: Annotated[int, Range(0, 2**31 - 1)]
  dtype: Literal["float32", "bfloat16", "float64"]  # of the network's arithmetic
  model: ModelConfig
  init: InitConfig
  data: DataConfig
  loss: LossConfig
  optimizer: OptimizerConfig
  training: TrainingConfig
  evaluation: EvaluationConfig

  def __post_init__(self):
    warmup, epochs = self.optimizer.warmup_epochs, self.training.num_epochs
    if self.optimizer.schedule == "cosine" and warmup >= epochs:
      raise ConfigError(
        f"optimizer.warmup_epochs: {warmup} leave nothing of {epochs} epochs to schedule=cosine"
      )

  @classmethod
  def from_config_dict(cls, config: Mapping[str, Any]) -> "Config":
    """Validates a config file's `ConfigDict`.

    Args:
      config: nested mapping with exactly the fields of `Config`.

    Raises:
      ConfigError: on the first unknown, missing, wrongly typed or out-of-range field; the message
        starts with its dotted name.
    """
    return build(cls, config, "config")

  def on(self, dataset: str) -> "Config":
    """Returns the config of one data set of several, or of another."""
    return dataclasses.replace(self, data=self.data.of(dataset))

  def to_dict(self) -> dict[str, Any]:
    """Returns nested plain dicts, tuples and scalars, for storing beside a checkpoint."""
    return dataclasses.asdict(self)


def check_field(path: str) -> None:
  """Checks that there is a field of a name, as `optimizer.learning_rate`, or a group.

  Raises:
    ConfigError: names the first part that is wrong.
  """
  kind, known = Config, "config"
  for name in path.split("."):
    if not dataclasses.is_dataclass(kind):
      raise ConfigError(f"{known}: a value, which has no field {name}")
    hints = typing.get_type_hints(kind)
    if name not in hints:
      raise ConfigError(f"{known}.{name}: no such field{suggestion(name, hints)}")
    kind, known = hints[name], f"{known}.{name}"
