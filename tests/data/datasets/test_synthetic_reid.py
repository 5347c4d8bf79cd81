"""The TFDS builder of the drawn data set, and its config file."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import cuhk03, synthetic
from magnifier_jax.config import Config
from magnifier_jax.data import preparing
from magnifier_jax.data.datasets.synthetic_reid import SyntheticReid, SyntheticReidConfig
from magnifier_jax.data.prepared import record_files
from magnifier_jax.data.prepared.copies import PreparedCopy
from magnifier_jax.data.records import SPLITS
from magnifier_jax.data.synthetic.pedestrians import draw_pedestrian

TINY = SyntheticReidConfig(
  name="tiny", training_people=3, test_people=2, cameras=2, images_per_camera=2
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> SyntheticReid:
  builder = SyntheticReid(config=TINY, data_dir=tmp_path_factory.mktemp("tfds"))
  builder.download_and_prepare()
  return builder


def test_prepared_records_are_the_drawn_pictures(tiny):
  for split, count in zip(SPLITS, (12, 4, 4)):
    source = tiny.as_data_source(split)
    assert len(source) == count
    for record in source:
      person_id, camera_id = int(record["person_id"]), int(record["camera_id"])
      path = record["path"].decode()
      number = int(path.removesuffix(".jpg").rsplit("_", 1)[1]) - 1
      drawn = draw_pedestrian(TINY.seed, person_id, camera_id - 1, number)
      assert path == f"{split}/{person_id:04d}_c{camera_id}_{number + 1}.jpg"
      np.testing.assert_array_equal(record["part_labels"][..., 0], drawn.part_labels)
      # JPEG halves the resolution of colour, so only nearly the same.
      assert np.abs(record["image"].astype(int) - drawn.image).mean() < 8


def test_index_names_every_record(tiny):
  for split in SPLITS:
    index = record_files.read_index(Path(tiny.data_path), split)
    assert [record["path"].decode() for record in tiny.as_data_source(split)] == list(index.path)


def test_training_and_test_people_differ_and_every_query_has_a_match(tiny):
  train, query, gallery = (record_files.read_index(Path(tiny.data_path), split) for split in SPLITS)
  assert set(train.person_id) == {1, 2, 3}
  assert set(query.person_id) == set(gallery.person_id) == {4, 5}
  for person, camera in zip(query.person_id, query.camera_id):
    assert ((gallery.person_id == person) & (gallery.camera_id != camera)).any()
  assert not {path.split("/")[1] for path in query.path} & {
    path.split("/")[1] for path in gallery.path
  }


def test_sizes_of_the_published_configs(tmp_path):
  sizes = {
    config.name: [
      len(SyntheticReid(config=config.name, data_dir=tmp_path).sources(split, None))
      for split in SPLITS
    ]
    for config in SyntheticReid.BUILDER_CONFIGS
  }
  assert sizes == {"small": [1440, 180, 540], "large": [18408, 1200, 3600]}


def test_files_are_a_jpeg_and_a_one_channel_png(tiny):
  record = tiny.read_record(tiny.sources("train", None)[0])
  assert Image.open(io.BytesIO(record.image)).format == "JPEG"
  labels = Image.open(io.BytesIO(record.part_labels))
  assert (labels.format, labels.mode) == ("PNG", "L")


def test_pictures_are_drawn_again_when_the_code_changes(monkeypatch, tmp_path):
  def prepared() -> PreparedCopy:
    return preparing.prepare(SyntheticReid(config=TINY, data_dir=tmp_path), None)

  first = prepared()
  assert prepared().key == first.key
  changed = tmp_path / "pedestrians.py"
  changed.write_text("# drawn otherwise")
  monkeypatch.setattr("magnifier_jax.data.datasets.synthetic_reid._DRAWING_CODE", (changed,))
  assert prepared().key != first.key


@pytest.mark.parametrize(
  ("field", "value"), [("cameras", 1), ("cameras", 7), ("images_per_camera", 1)]
)
def test_impossible_sizes_are_refused_by_name(field, value):
  sizes = {"training_people": 2, "test_people": 2, "cameras": 2, "images_per_camera": 2}
  with pytest.raises(ValueError, match=field):
    SyntheticReidConfig(name="bad", **{**sizes, field: value})


@pytest.mark.parametrize("variant", ["small", "large"])
def test_config_file_is_valid_and_names_a_data_set_that_exists(variant):
  config = Config.from_config_dict(synthetic.get_config(variant))
  assert config.data.dataset == f"synthetic_reid/{variant}"
  assert variant in {config.name for config in SyntheticReid.BUILDER_CONFIGS}
  assert config.evaluation.initial


def test_config_file_has_the_fields_of_the_other_one():
  def names(config, prefix="") -> set[str]:
    return {
      name
      for key, value in config.items()
      for name in (names(value, f"{prefix}{key}.") if hasattr(value, "items") else {prefix + key})
    }

  assert names(synthetic.get_config()) == names(cuhk03.get_config())


def test_unknown_variant_names_the_known_ones():
  with pytest.raises(ValueError, match=r"'tiny'.* small, .*large$"):
    synthetic.get_config("tiny")
