"""The settings of the authors' code, where a run differs from them, and its published row."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

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


class ReferenceRow(NamedTuple):
  """A row of the authors' ablation table, each of which adds something to the network."""

  variant: str  # of the files in `configs/`
  published: str  # key of `config.published`; '' where the authors give no numbers
  adversarial_branch: bool
  fusion_branch: bool
  part_segmentation: bool
  diversity: bool


# From the weakest to the best.
REFERENCE_ROWS = (
  ReferenceRow("baseline", "baseline", False, False, False, False),
  ReferenceRow("part_segmentation", "+ part segmentation", False, False, True, False),
  ReferenceRow("adversarial", "+ semantic adversarial branch", True, False, True, False),
  ReferenceRow(
    "fusion", "+ semantic fusion branch, without the adversarial one", False, True, True, False
  ),
  ReferenceRow("no_diversity", "", True, True, True, False),
  ReferenceRow("all", "all", True, True, True, True),
)


def reference_row(config: Mapping[str, Any]) -> ReferenceRow | None:
  """Returns the row of the authors' table that a run corresponds to, whatever its size.

  Args:
    config: nested, as `Config.to_dict` returns it or a checkpoint stores it.

  Returns:
    None for a network that the table does not have.
  """
  model, loss = config["model"], config["loss"]
  if not model["global_branch"]:
    return None
  diversity = (
    model["fusion_branch"]
    and loss["diversity_weight"] > 0
    and loss["diversity_start_epoch"] <= config["training"]["num_epochs"]
  )
  switches = (
    model["adversarial_branch"],
    model["fusion_branch"],
    model["part_segmentation"],
    diversity,
  )
  return next((row for row in REFERENCE_ROWS if row[2:] == switches), None)


def published_row(config: Mapping[str, Any], results: str) -> str:
  """Returns the key of `config.published` that measures the same as a row of a run's results.

  Args:
    config: nested, as `Config.to_dict` returns it or a checkpoint stores it.
    results: 'all' for the whole embedding, 'all, re-ranked', or a branch.

  Returns:
    '' where nothing like it was published.
  """
  row = reference_row(config)
  if row is None or not row.published:
    return ""
  name = {"all": row.published, "all, re-ranked": f"{row.published}, re-ranked"}.get(results, "")
  return name if name in config["published"] else ""


def differences_from_reference(config: Mapping[str, Any]) -> list[str]:
  """Returns 'field: value here (value there)' for each setting that is not the authors'.

  Args:
    config: nested, as `Config.to_dict` returns it or a checkpoint stores it; a field that an
      earlier version did not have may be missing.
  """
  ours = dict(leaves(config))
  return [
    f"{name}: {ours.get(name, 'not recorded')} (the authors: {theirs})"
    for name, theirs in _AUTHORS.items()
    if name not in ours or ours[name] != theirs
  ]


def leaves(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
  """Yields (dotted name, value) of a nested config; lists, which JSON has, become tuples."""
  for name, value in config.items():
    child = f"{path}.{name}" if path else name
    if isinstance(value, Mapping):
      yield from leaves(value, child)
    else:
      yield child, tuple(value) if isinstance(value, list) else value
