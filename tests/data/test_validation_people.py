"""Training people held back for choosing a network."""

import time

import numpy as np
import pytest

from magnifier_jax.config import ConfigError
from magnifier_jax.data import dataset, validation_people
from magnifier_jax.data.pipeline import evaluation_batches, train_batches
from magnifier_jax.data.records import SplitIndex

from .noise_tree import write_tree


def _load(make_config, people: int, **overrides):
  return dataset.load(make_config(data__validation_people=people, **overrides).data)


def test_people_are_divided_and_every_training_image_stays(make_config, tmp_path):
  write_tree(tmp_path, train_images=(3, 5, 2, 4, 7, 1, 6))
  whole, divided = _load(make_config, 0), _load(make_config, 3)
  splits = divided.train, divided.query, divided.gallery
  assert sorted(path for split in splits for path in split.path) == sorted(whole.train.path)
  held_back = set(divided.query.person_id)
  assert len(held_back) == 3
  assert held_back == set(divided.gallery.person_id)
  assert held_back | set(divided.train_person_ids) == set(whole.train_person_ids)
  assert not held_back & set(divided.train_person_ids)
  assert set(divided.train.person_id) == {0, 1, 2, 3}


def test_records_are_those_of_the_source(make_config, tmp_path):
  write_tree(tmp_path, train_images=(3, 5, 2, 4))
  whole, divided = _load(make_config, 0), _load(make_config, 2)
  for split in (divided.train, divided.query, divided.gallery):
    for i, path in enumerate(split.path):
      source = whole.train.path.index(path)
      assert split.encoded(i) == whole.train.encoded(source)
      assert split.camera_id[i] == whole.train.camera_id[source]


def test_the_seed_of_the_run_does_not_choose_the_people(make_config, tmp_path):
  write_tree(tmp_path, train_images=(4,) * 12)
  chosen = [set(_load(make_config, 3, seed=seed).query.person_id) for seed in (0, 1)]
  assert chosen[0] == chosen[1]


def test_images_of_unknown_cameras_count_as_of_different_ones():
  person_id = np.array([5, 6, 6, 7, 7, 7, 8])
  unknown = np.full(7, -1)
  index = SplitIndex(person_id, unknown, [""] * 7)
  assert set(validation_people.held_back(index, 2)) == {6, 7}  # who has a query and a match
  is_query = validation_people.query_rows(person_id[1:6], unknown[1:6])
  assert is_query.tolist() == [True, False, True, False, False]


def test_every_query_has_a_match_from_another_camera():
  random = np.random.default_rng(0)
  for _ in range(200):
    person_id = np.repeat(np.arange(5), random.integers(2, 7, 5))
    camera_id = random.integers(1, 4, len(person_id))
    for person in range(5):  # two cameras at least
      camera_id[np.flatnonzero(person_id == person)[:2]] = 1, 2
    is_query = validation_people.query_rows(person_id, camera_id)
    assert set(person_id[is_query]) == set(range(5))
    queries = list(zip(person_id[is_query], camera_id[is_query]))
    assert len(set(queries)) == len(queries)
    for person, camera in queries:
      assert ((person_id == person) & (camera_id != camera) & ~is_query).any()


def test_people_of_one_camera_are_not_held_back():
  person_id = np.array([1, 1, 2, 2, 3, 3])
  camera_id = np.array([1, 2, 1, 1, 1, 2])
  index = dataset.SplitIndex(person_id, camera_id, ("",) * 6)
  assert set(validation_people.held_back(index, 2)) == {1, 3}
  with pytest.raises(ConfigError, match=r"validation_people: 3 .* has 3, of whom 2 are seen"):
    validation_people.held_back(index, 3)


def test_nobody_would_be_left_to_train_on(make_config, tmp_path):
  write_tree(tmp_path, train_images=(3, 5))
  with pytest.raises(ConfigError, match=r"config\.data\.validation_people: 2 people cannot be"):
    _load(make_config, 2)


def test_batches_come_from_the_divided_splits(make_config, tmp_path):
  write_tree(tmp_path, train_images=(3, 5, 2, 4, 4, 4))
  config = make_config(data__validation_people=2)
  data = dataset.load(config.data)
  (batch,) = train_batches(data, config, stop_step=1)
  assert set(batch.person_id) == {0, 1, 2, 3}
  seen = [b.index[b.mask == 1] for b in evaluation_batches(data.gallery, config)]
  np.testing.assert_array_equal(np.concatenate(seen), np.arange(len(data.gallery)))


def test_queries_of_many_people_are_found_without_comparing_all_of_them():
  person_id = np.repeat(np.arange(300_000), 2)
  camera_id = np.tile([1, 2], 300_000)
  start = time.process_time()
  is_query = validation_people.query_rows(person_id, camera_id)
  assert time.process_time() - start < 20  # a comparison of each with each takes minutes
  np.testing.assert_array_equal(is_query, camera_id == 1)
