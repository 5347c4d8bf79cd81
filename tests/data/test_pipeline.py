"""Batches: functions of seed and step, equal in slices, and every test image once."""

import itertools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from magnifier_jax.config import ConfigError
from magnifier_jax.data.pipeline import evaluation_batches, train_batches
from magnifier_jax.train_state import Batch


def _assert_same(batch: Batch, other: Batch) -> None:
  for array, expected in zip(batch, other):
    np.testing.assert_array_equal(array, expected)


def test_a_training_batch_has_the_shapes_and_types_of_the_design(noise_dataset, noise_config):
  (batch,) = train_batches(noise_dataset, noise_config(), stop_step=1)
  described = {name: (array.shape, array.dtype.name) for name, array in batch._asdict().items()}
  assert described == {
    "image": ((8, 64, 32, 3), "uint8"),
    "part_labels": ((8, 8, 4), "uint8"),
    "keep_mask": ((8, 4, 2), "uint8"),
    "person_id": ((8,), "int32"),
  }
  assert set(np.unique(batch.keep_mask)) == {0, 1}
  assert batch.part_labels.max() <= 7
  assert len(set(batch.person_id)) == 4


def test_the_seed_and_the_step_decide_a_batch(noise_dataset, noise_config):
  batches = list(train_batches(noise_dataset, noise_config(), stop_step=6))
  resumed = list(train_batches(noise_dataset, noise_config(), start_step=4, stop_step=6))
  assert len(resumed) == 2
  _assert_same(resumed[0], batches[4])
  _assert_same(resumed[1], batches[5])
  (one_worker,) = train_batches(
    noise_dataset, noise_config(data__num_workers=1), start_step=5, stop_step=6
  )
  _assert_same(one_worker, batches[5])


def test_batches_and_seeds_differ(noise_dataset, noise_config):
  batches = [
    batch.image.tobytes()
    for seed in (0, 1)
    for batch in train_batches(noise_dataset, noise_config(seed=seed), stop_step=3)
  ]
  assert len(set(batches)) == 6


@pytest.mark.parametrize("per_image", [False, True])
def test_slices_of_the_processes_make_the_whole_batch(noise_dataset, noise_config, per_image):
  config = noise_config(data__occlusion__per_image=per_image)
  (whole,) = train_batches(noise_dataset, config, 3, 4)
  slices = [
    next(train_batches(noise_dataset, config, 3, 4, process_index=i, process_count=4))
    for i in range(4)
  ]
  joined = jax.tree.map(lambda *rows: np.concatenate(rows), *slices)
  _assert_same(joined, whole)


def test_training_goes_on_without_end(noise_dataset, noise_config):
  batches = train_batches(noise_dataset, noise_config())
  assert len(list(itertools.islice(batches, 20))) == 20


def test_evaluation_shows_every_image_once_and_pads_the_last_batch(noise_dataset, noise_config):
  gallery = noise_dataset.gallery
  batches = list(evaluation_batches(gallery, noise_config()))
  assert [batch.image.shape for batch in batches] == [(8, 64, 32, 3)] * 2
  fields = {
    name: np.concatenate([getattr(b, name) for b in batches]) for name in batches[0]._fields
  }
  valid = fields["mask"] == 1
  assert valid.tolist() == [True] * 10 + [False] * 6
  np.testing.assert_array_equal(fields["index"][valid], np.arange(10))
  assert fields["index"].dtype == np.int32
  assert (fields["image"][valid] > 0).any(axis=(1, 2, 3)).all()
  assert not fields["image"][~valid].any()
  assert (fields["index"][~valid] == -1).all()


def test_evaluation_slices_make_the_whole_batch(noise_dataset, noise_config):
  query = noise_dataset.query
  (whole,) = evaluation_batches(query, noise_config())
  halves = [next(evaluation_batches(query, noise_config(), i, 2)) for i in range(2)]
  for i, array in enumerate(whole):
    np.testing.assert_array_equal(np.concatenate([half[i] for half in halves]), array)


def test_what_the_processes_do_not_divide_is_refused(noise_dataset, noise_config):
  with pytest.raises(ConfigError, match=r"^config\.data\.identities_per_batch × .*3 processes"):
    train_batches(noise_dataset, noise_config(), process_count=3)
  with pytest.raises(ConfigError, match=r"^config\.evaluation\.batch_size: .*3 processes"):
    evaluation_batches(noise_dataset.query, noise_config(), process_count=3)


def test_more_people_a_batch_than_there_are_is_refused(noise_dataset, noise_config):
  with pytest.raises(ConfigError, match=r"^config\.data\.identities_per_batch: 7 .* has 6 "):
    train_batches(noise_dataset, noise_config(data__identities_per_batch=7))


_LEAVE_WHILE_BATCHES_ARE_MADE = """
import os, sys, tempfile
from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.data import dataset
from magnifier_jax.data.pipeline import train_batches

config = get_config("small")
config.data.manual_dir, config.data.data_dir = sys.argv[1:]
config.data.identities_per_batch = 4
config = Config.from_config_dict(config)
batches = train_batches(dataset.load(config.data), config)
next(batches)
# A process that is killed deletes none of TensorFlow's rewritten functions.
print([name for name in os.listdir(tempfile.gettempdir()) if "autograph" in name])
"""


def test_leaving_python_ends_the_threads_and_leaves_no_file(
  noise_dataset, noise_config, repository, tmp_path
):
  config = noise_config()
  command = [sys.executable, "-c", _LEAVE_WHILE_BATCHES_ARE_MADE]
  command += [config.data.manual_dir, config.data.data_dir]
  environment = {**os.environ, "PYTHONPATH": str(repository), "TMPDIR": str(tmp_path)}
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr
  assert (done.stdout, done.stderr) == ("[]\n", "")
