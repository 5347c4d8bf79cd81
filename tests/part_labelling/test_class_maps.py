"""Classes of other data sets and of the user's own, as our eight parts."""

import json

import numpy as np
import pytest

from magnifier_jax.body_parts import PART_NAMES
from magnifier_jax.part_labelling.class_maps import CLASS_MAPS, find_class_map
from magnifier_jax.part_labelling.labeller import LabellingError


def _part(name: str, class_number: int) -> str:
  """Returns what a class that fills a 2 × 1 image becomes."""
  (part,) = np.unique(find_class_map(name).parts(np.full((2, 1), class_number)))
  return PART_NAMES[part]


@pytest.mark.parametrize(
  ("name", "num_classes", "class_number", "part"),
  [
    ("parts", 8, 3, "upper arm"),
    ("lip", 20, 3, "lower arm"),  # glove
    ("lip", 20, 10, "torso"),  # jumpsuit
    ("lip", 20, 19, "foot"),  # right shoe
    ("atr", 18, 11, "head"),  # face
    ("atr", 18, 16, "background"),  # bag
    ("atr", 18, 9, "foot"),  # left shoe
    ("cihp", 20, 8, "lower leg"),  # socks
    ("cihp", 20, 10, "torso"),  # its skin
    ("pascal-person-part", 7, 5, "upper leg"),
    ("densepose", 25, 3, "lower arm"),  # right hand
    ("densepose", 25, 10, "upper leg"),
    ("densepose", 25, 14, "lower leg"),
    ("densepose", 25, 15, "upper arm"),
    ("densepose", 25, 22, "lower arm"),
    ("densepose", 25, 23, "head"),
    ("densepose-coarse", 15, 4, "foot"),
    ("densepose-coarse", 15, 10, "upper arm"),
  ],
)
def test_a_class_becomes_its_part(name: str, num_classes: int, class_number: int, part: str):
  assert CLASS_MAPS[name].num_classes == num_classes
  assert _part(name, class_number) == part


def test_trousers_are_divided_half_way_down_to_the_soles():
  classes = np.zeros((12, 3), int)
  classes[2:8, 1] = 9  # trousers
  classes[8:10, 1] = 18  # a shoe
  parts = CLASS_MAPS["lip"].parts(classes)
  names = [PART_NAMES[part] for part in parts[:, 1]]
  assert names == (
    ["background"] * 2 + ["upper leg"] * 4 + ["lower leg"] * 2 + ["foot"] * 2 + ["background"] * 2
  )
  assert not parts[:, [0, 2]].any()


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_a_map_of_the_user(tmp_path, ending: str):
  file = tmp_path / f"map.{ending}"
  text = '{"0": "background", "1": 7, "2": "lower leg"}'
  file.write_text(text if ending == "json" else "0: background\n1: 7\n2: lower leg\n")
  class_map = find_class_map(str(file))
  assert class_map.targets == ("background", "foot", "lower leg")
  assert class_map.parts(np.array([[1, 2, 0]])).tolist() == [[7, 6, 0]]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ({"0": "background", "1": "upper-arm"}, "class 1 becomes 'upper-arm'.*mean 'upper arm'"),
    ({"0": "background", "1": 8}, "class 1 becomes 8, which is no part"),
    ({"0": "background", "2": "head"}, "says nothing about class 1"),
    ({"head": "head"}, "'head' is no class number"),
    (["background"], "must hold {class number: part}"),
  ],
)
def test_mistakes_in_a_map_of_the_user_are_named(tmp_path, content, message: str):
  file = tmp_path / "map.json"
  file.write_text(json.dumps(content))
  with pytest.raises(LabellingError, match=f"--classes: .*{message}"):
    find_class_map(str(file))


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("lips", "no map is called 'lips'; choose from parts, lip, atr"),
    ("nowhere.json", "cannot be read"),
  ],
)
def test_a_map_that_is_not_there_is_named(name: str, message: str):
  with pytest.raises(LabellingError, match=message):
    find_class_map(name)
