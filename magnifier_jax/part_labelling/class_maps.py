"""Which of our eight parts the classes of human-parsing data sets belong to.

Data sets of clothes (LIP, ATR, CIHP) divide neither trousers at the knee, which `LEG` below mends,
nor sleeves from the torso: those have no upper arm. Pascal-Person-Part has no foot.
"""

import difflib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from magnifier_jax.body_parts import FOOT, LOWER_LEG, NUM_PARTS, PART_NAMES, UPPER_LEG
from magnifier_jax.files.user_path import user_path
from magnifier_jax.part_labelling.labeller import LabellingError

LEG = "leg"  # a class of whole legs: its upper half becomes upper leg, the other half lower leg
_TARGETS = (*PART_NAMES, LEG)


class ClassMap(NamedTuple):
  """A parser's classes and what becomes of each."""

  name: str
  targets: tuple[str, ...]  # of class 0, 1, …: a part or `LEG`

  @property
  def num_classes(self) -> int:
    return len(self.targets)

  def parts(self, classes: np.ndarray) -> np.ndarray:
    """Maps the classes of an image to parts.

    Args:
      classes: (H, W) integers, 0…num_classes−1.

    Returns:
      (H, W) uint8, values 0…7.
    """
    targets = np.array([_TARGETS.index(target) for target in self.targets], np.uint8)[classes]
    return _divide_legs(targets)


def _divide_legs(targets: np.ndarray) -> np.ndarray:
  """Turns `LEG` into upper and lower leg, at half the height from its top to the soles."""
  is_leg = targets == _TARGETS.index(LEG)
  if not is_leg.any():
    return targets
  rows = np.flatnonzero(is_leg.any(axis=1))
  below = np.flatnonzero((is_leg | (targets == FOOT) | (targets == LOWER_LEG)).any(axis=1))
  knee = (rows[0] + below[-1] + 1) / 2
  is_upper = (np.arange(len(targets)) + 0.5 < knee)[:, None]
  return np.where(is_leg, np.where(is_upper, UPPER_LEG, LOWER_LEG), targets).astype(np.uint8)


def _class_map(name: str, classes: dict[str, str]) -> ClassMap:
  """Returns the map of {class of the parser, in its order: target}."""
  return ClassMap(name, tuple(classes.values()))


_LIP = {
  "background": "background",
  "hat": "head",
  "hair": "head",
  "glove": "lower arm",
  "sunglasses": "head",
  "upper clothes": "torso",
  "dress": "torso",
  "coat": "torso",
  "socks": "lower leg",
  "pants": LEG,
  "jumpsuit": "torso",
  "scarf": "torso",
  "skirt": "upper leg",
  "face": "head",
  "left arm": "lower arm",
  "right arm": "lower arm",
  "left leg": LEG,
  "right leg": LEG,
  "left shoe": "foot",
  "right shoe": "foot",
}
_ATR = {
  "background": "background",
  "hat": "head",
  "hair": "head",
  "sunglasses": "head",
  "upper clothes": "torso",
  "skirt": "upper leg",
  "pants": LEG,
  "dress": "torso",
  "belt": "torso",
  "left shoe": "foot",
  "right shoe": "foot",
  "face": "head",
  "left leg": LEG,
  "right leg": LEG,
  "left arm": "lower arm",
  "right arm": "lower arm",
  "bag": "background",
  "scarf": "torso",
}
_CIHP = {("torso skin" if name == "jumpsuit" else name): part for name, part in _LIP.items()}
_PASCAL_PERSON_PART = {
  "background": "background",
  "head": "head",
  "torso": "torso",
  "upper arms": "upper arm",
  "lower arms": "lower arm",
  "upper legs": "upper leg",
  "lower legs": "lower leg",
}
# Torso, hands, feet, legs and arms twice each (front and back, or right and left), head.
_DENSEPOSE = (
  ("background", 1), ("torso", 2), ("lower arm", 2), ("foot", 2), ("upper leg", 4),
  ("lower leg", 4), ("upper arm", 4), ("lower arm", 4), ("head", 2),
)  # fmt: skip
_DENSEPOSE_COARSE = (
  ("background", 1), ("torso", 1), ("lower arm", 2), ("foot", 2), ("upper leg", 2),
  ("lower leg", 2), ("upper arm", 2), ("lower arm", 2), ("head", 1),
)  # fmt: skip


def _repeated(name: str, runs: tuple[tuple[str, int], ...]) -> ClassMap:
  return ClassMap(name, tuple(part for part, times in runs for _ in range(times)))


CLASS_MAPS = {
  class_map.name: class_map
  for class_map in (
    ClassMap("parts", PART_NAMES),
    _class_map("lip", _LIP),
    _class_map("atr", _ATR),
    _class_map("cihp", _CIHP),
    _class_map("pascal-person-part", _PASCAL_PERSON_PART),
    _repeated("densepose", _DENSEPOSE),
    _repeated("densepose-coarse", _DENSEPOSE_COARSE),
  )
}


def find_class_map(name: str) -> ClassMap:
  """Returns a map of ours by its name, or the user's by its file.

  Args:
    name: a key of `CLASS_MAPS`, or a path that ends in .json, .yaml or .yml.

  Raises:
    LabellingError: when there is no such map, or the file is not one.
  """
  if name in CLASS_MAPS:
    return CLASS_MAPS[name]
  if name.endswith((".json", ".yaml", ".yml")):
    return _read_class_map(user_path(name))
  raise LabellingError(
    f"--classes: no map is called {name!r}; choose from {', '.join(CLASS_MAPS)}, or name a .json "
    "or .yaml file of your own"
  )


def _read_class_map(file: Path) -> ClassMap:
  """Reads {class number: part}, in JSON or YAML."""
  try:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML too
  except OSError as error:
    raise LabellingError(f"--classes: {file} cannot be read ({error.strerror})") from error
  except (yaml.YAMLError, UnicodeDecodeError) as error:
    raise LabellingError(f"--classes: {file} is not JSON or YAML: {error}") from error
  if not isinstance(content, dict) or not content:
    raise LabellingError(f'--classes: {file} must hold {{class number: part}}, as {{"0": "head"}}')
  targets = {_class_number(key, file): _target(value, key, file) for key, value in content.items()}
  missing = sorted(set(range(max(targets) + 1)) - targets.keys())
  if missing:
    raise LabellingError(f"--classes: {file} says nothing about class {missing[0]}; map every one")
  return ClassMap(str(file), tuple(targets[number] for number in sorted(targets)))


def _class_number(key: Any, file: Path) -> int:
  if not str(key).isdecimal():
    raise LabellingError(f"--classes: {file}: {key!r} is no class number; they count from 0")
  return int(key)


def _target(value: Any, key: Any, file: Path) -> str:
  if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < NUM_PARTS:
    return PART_NAMES[value]
  if value in _TARGETS:
    return value
  close = difflib.get_close_matches(str(value), _TARGETS, n=1)
  hint = f"did you mean {close[0]!r}?" if close else f"parts are {', '.join(_TARGETS)}, or 0…7"
  raise LabellingError(
    f"--classes: {file}: class {key} becomes {value!r}, which is no part; {hint}"
  )
