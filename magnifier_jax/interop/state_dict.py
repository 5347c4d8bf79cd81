"""PyTorch `state_dict` names and layouts ↔ our parameter and batch-statistics trees.

The names are those of the authors' implementation; its backbone is torchvision's under the prefix
`base.model.`. Arrays are numpy throughout, so PyTorch is not needed here.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.errors import UserError
from magnifier_jax.train_state import Tree

# Our module path → PyTorch's; the first pattern that matches the whole path counts.
_MODULES = (
  (r"backbone/(conv1|bn1)", r"base.model.\1"),
  (r"backbone/stage(\d)/block(\d+)/shortcut/conv/linear", r"base.model.layer\1.\2.downsample.0"),
  (r"backbone/stage(\d)/block(\d+)/shortcut/bn", r"base.model.layer\1.\2.downsample.1"),
  (r"backbone/stage(\d)/block(\d+)/(\w+?)(/linear)?", r"base.model.layer\1.\2.\3"),
  (r"global_branch/pool", r"base.gem"),  # ours: the authors have none, and others call it p
  (r"global_branch/bnneck", r"base.feat_bn"),
  (r"global_branch/classifier", r"classifier"),
  (r"adversarial_branch/bottleneck/(\w+?)(/linear)?", r"base.mask.bottle.\1"),
  (r"adversarial_branch/reduce/linear", r"base.mask.dim_reducer"),
  (r"adversarial_branch/bnneck", r"base.mask.mask_bn"),
  (r"adversarial_branch/classifier", r"classifier_mask"),
  (r"fusion_branch/bottleneck/(\w+?)(/linear)?", r"base.part.bottle.\1"),
  (r"fusion_branch/part_bnneck", r"base.part.part_bns.{part}"),
  (r"fusion_branch/part_classifier", r"classifier_part.{part}"),
  (r"fusion_branch/fusion", r"base.part.lstm"),
  (r"fusion_branch/bnneck", r"base.part.combine_bn"),
  (r"fusion_branch/classifier", r"classifier_anchor"),
  (r"part_segmentation/upsample", r"base.seg_module.deconv"),
  (r"part_segmentation/bn", r"base.seg_module.bn"),
  (r"part_segmentation/classifier", r"base.seg_module.conv"),
)

_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
  "kernel_input": "weight_ih_l0",
  "kernel_hidden": "weight_hh_l0",
  "bias_input": "bias_ih_l0",
  "bias_hidden": "bias_hh_l0",
  "power": "p",
}


class StateDictError(UserError):
  """A `state_dict` does not fit the network; the message lists every entry that does not."""


class Layout(NamedTuple):
  """How one array is stored on either side."""

  to_ours: Callable[[np.ndarray], np.ndarray]
  to_torch: Callable[[np.ndarray], np.ndarray]


_SAME = Layout(lambda x: x, lambda x: x)
_LINEAR = Layout(lambda x: x.T, lambda x: x.T)  # [out, in] ↔ [in, out]
_CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # OIHW ↔ HWIO
_CONV1X1 = Layout(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])
# [in, out, H, W] ↔ [in, H, W, out]
_TRANSPOSED_CONV = Layout(lambda x: x.transpose(0, 2, 3, 1), lambda x: x.transpose(0, 3, 1, 2))


class Entry(NamedTuple):
  """Where one of our arrays comes from; `names` has one name, or one for each stacked part."""

  names: tuple[str, ...]
  layout: Layout

  def to_ours(self, state_dict: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns our array."""
    arrays = [self.layout.to_ours(np.asarray(state_dict[name])) for name in self.names]
    return arrays[0] if len(arrays) == 1 else np.stack(arrays)

  def to_torch(self, array: np.ndarray) -> dict[str, np.ndarray]:
    """Returns PyTorch's arrays by name."""
    parts = [array] if len(self.names) == 1 else list(array)
    return {
      name: np.ascontiguousarray(self.layout.to_torch(part))
      for name, part in zip(self.names, parts, strict=True)
    }


def entry(path: tuple[str, ...]) -> Entry:
  """Returns the PyTorch entry of the array at `path` in our parameters or batch statistics."""
  *module, leaf = path
  name = f"{_torch_module('/'.join(module))}.{_LEAVES[leaf]}"
  parts = range(NUM_PARTS) if "{part}" in name else range(1)
  return Entry(tuple(name.format(part=part) for part in parts), _layout(path))


def _torch_module(module: str) -> str:
  for pattern, replacement in _MODULES:
    if match := re.fullmatch(pattern, module):
      return match.expand(replacement)
  raise KeyError(module)


def _layout(path: tuple[str, ...]) -> Layout:
  leaf = path[-1]
  if leaf in ("kernel_input", "kernel_hidden"):
    return _LINEAR
  if leaf != "kernel":
    return _SAME
  if path[-2] == "upsample":
    return _TRANSPOSED_CONV
  if path[-2] == "linear" or path[:2] == ("part_segmentation", "classifier"):
    return _CONV1X1
  return _LINEAR if path[-2] in ("classifier", "part_classifier") else _CONV


def is_classifier(name: str) -> bool:
  """Whether a PyTorch name is of a classifier over people, not over parts."""
  return name.startswith("classifier")


def num_people(state_dict: Mapping[str, np.ndarray], source: str) -> int:
  """Returns N, the number of people that a whole network was trained on.

  Raises:
    StateDictError: when there is no classifier over people; names `source`.
  """
  for name, array in state_dict.items():
    if is_classifier(name) and name.endswith(".bias") and array.ndim == 1:
      return len(array)
  raise StateDictError(
    f"{source}: not a MagnifierNet; there is no classifier of people in it, such as "
    "classifier.bias. The weights of a backbone alone belong into config.init.backbone"
  )


def load_state_dict(
  state_dict: Mapping[str, np.ndarray],
  params: Tree,
  batch_stats: Tree,
  source: str = "the state_dict",
) -> tuple[Tree, Tree]:
  """Fills our trees from a PyTorch `state_dict`.

  Args:
    state_dict: {name: array in PyTorch's layout}. `num_batches_tracked` counters are ignored: the
      running averages here have no use for them.
    params: nested dict of arrays or `jax.ShapeDtypeStruct`, whose shapes and dtypes are kept.
    batch_stats: likewise.
    source: what the error is about, e.g. a file.

  Returns:
    New params and batch statistics, numpy arrays.

  Raises:
    StateDictError: lists all missing, extra and mis-shaped entries at once.
  """
  targets = traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats})
  entries = {path: entry(path[1:]) for path in targets}
  problems = _missing_and_extra(state_dict, entries.values())
  loaded = {}
  for path, theirs in entries.items():
    if any(name not in state_dict for name in theirs.names):
      continue
    array, target = _convert(theirs, state_dict), targets[path]
    if array is None or array.shape != target.shape:
      problems.append(_wrong_shape(theirs, state_dict, target.shape))
    else:
      loaded[path] = array.astype(target.dtype)
  if problems:
    raise StateDictError(
      f"{source} does not fit the network, {len(problems)} entries:\n  " + "\n  ".join(problems)
    )
  trees = traverse_util.unflatten_dict(loaded)
  return trees["params"], trees["batch_stats"]


def to_state_dict(params: Tree, batch_stats: Tree) -> dict[str, np.ndarray]:
  """Returns {PyTorch name: array in PyTorch's layout}, the inverse of `load_state_dict`."""
  arrays = traverse_util.flatten_dict(params) | traverse_util.flatten_dict(batch_stats)
  state_dict: dict[str, np.ndarray] = {}
  for path, array in arrays.items():
    state_dict |= entry(path).to_torch(np.asarray(array))
  return state_dict


def _missing_and_extra(state_dict: Mapping[str, np.ndarray], entries: Any) -> list[str]:
  known = {name for source in entries for name in source.names}
  given = {name for name in state_dict if not name.endswith("num_batches_tracked")}
  return [f"missing: {name}" for name in sorted(known - given)] + [
    f"extra: {name}" for name in sorted(given - known)
  ]


def _convert(source: Entry, state_dict: Mapping[str, np.ndarray]) -> np.ndarray | None:
  """Returns our array, or None where the shape is one that cannot even be converted."""
  try:
    return source.to_ours(state_dict)
  except (ValueError, IndexError):
    return None


def _wrong_shape(
  source: Entry, state_dict: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> str:
  expected = source.to_torch(np.broadcast_to(np.float32(0), shape))
  wrong = [
    f"{name} has shape {np.shape(state_dict[name])}, the network needs {expected[name].shape}"
    for name in source.names
    if np.shape(state_dict[name]) != expected[name].shape
  ]
  return "shape: " + "; ".join(wrong)
