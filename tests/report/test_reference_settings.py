"""What is said of a run's settings beside the authors'."""

import json
from typing import Any

import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.report.reference_settings import (
  WITHOUT_INFLUENCE,
  differences_from_reference,
  leaves,
)

FIELDS = tuple(name for name, _ in leaves(Config.from_config_dict(get_config()).to_dict()))


def changed(field: str, value: Any) -> dict[str, Any]:
  """The authors' config, nested, with one field of another value."""
  config = get_config("authors").to_dict()
  *groups, name = field.split(".")
  target = config
  for group in groups:
    target = target[group]
  target[name] = value
  return config


def test_the_authors_settings_differ_in_nothing():
  assert differences_from_reference(get_config("authors").to_dict()) == []


def test_the_default_differs_in_how_part_labels_are_resized():
  assert differences_from_reference(get_config().to_dict()) == [
    "data.part_label_resize: nearest (the authors: bilinear)"
  ]


@pytest.mark.parametrize(
  ("field", "value", "difference"),
  [
    ("loss.triplet_margin", 0.5, "loss.triplet_margin: 0.5 (the authors: 0.3)"),
    ("loss.label_smoothing", 0.0, "loss.label_smoothing: 0.0 (the authors: 0.1)"),
    ("optimizer.weight_decay", 0.0, "optimizer.weight_decay: 0.0 (the authors: 0.0005)"),
    (
      "data.augmentation.erasing_probability",
      0.0,
      "data.augmentation.erasing_probability: 0.0 (the authors: 0.5)",
    ),
    ("data.missing_part_labels", "bands", "data.missing_part_labels: bands (the authors: refuse)"),
    ("init.checkpoint", "runs/other", "init.checkpoint: runs/other (the authors: '')"),
    ("init.backbone", "mine.pth", "init.backbone: mine.pth (the authors: imagenet)"),
    ("dtype", "bfloat16", "dtype: bfloat16 (the authors: float32)"),
    ("data.validation_people", 100, "data.validation_people: 100 (the authors: 0)"),
    ("evaluation.checkpoint", "best", "evaluation.checkpoint: best (the authors: latest)"),
  ],
)
def test_another_setting_is_said(field: str, value: Any, difference: str):
  assert differences_from_reference(changed(field, value)) == [difference]


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_said_or_has_a_reason_not_to_be(field: str):
  said = differences_from_reference(changed(field, "something else"))
  assert bool(said) != (field in WITHOUT_INFLUENCE)


def test_only_fields_that_exist_are_left_out():
  assert WITHOUT_INFLUENCE.keys() <= set(FIELDS)


def test_a_field_that_only_one_version_knows_is_said():
  config = changed("loss.focal", 2.0)
  del config["dtype"]
  assert differences_from_reference(config) == [
    "dtype: not recorded (the authors: float32)",
    "loss.focal: 2.0 (the authors: no such setting)",
  ]


def test_a_stored_config_which_has_lists_for_tuples_is_the_same():
  stored = json.loads(json.dumps(get_config("authors").to_dict()))
  assert differences_from_reference(stored) == []
