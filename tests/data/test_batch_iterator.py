"""Errors in the input: they name a file, end the threads, and leave nothing to wait for."""

import dataclasses
import io
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from magnifier_jax.data import dataset
from magnifier_jax.data.dataset import ReidSplit
from magnifier_jax.data.pipeline import evaluation_batches, train_batches
from magnifier_jax.data.records import SourceError
from magnifier_jax.errors import UserError

Read = Callable[[dict[str, Any]], dict[str, Any]]


class _Records(Sequence[dict[str, Any]]):
  """The records of a split, one of which is damaged."""

  def __init__(self, records: Sequence[dict[str, Any]], damaged: int, damage: Read):
    self._records, self._damaged, self._damage = records, damaged, damage

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    record = self._records[index]
    return self._damage(record) if index == self._damaged else record


def _damage(split: ReidSplit, index: int, damage: Read) -> ReidSplit:
  return dataclasses.replace(split, records=_Records(split.records, index, damage))


def _cut(field: str) -> Read:
  return lambda record: record | {field: record[field][:-30]}


DAMAGES = {
  "its image": (_cut("image"), "Invalid PNG data, size "),
  "its part labels": (_cut("part_labels"), "Invalid PNG data, size "),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_record_that_training_cannot_read_is_named(noise_dataset, noise_config, what):
  damage, reason = DAMAGES[what]
  train = _damage(noise_dataset.train, 4, damage)
  batches = train_batches(noise_dataset._replace(train=train), noise_config())
  with pytest.raises(SourceError) as error:
    list(batches)
  message = str(error.value)
  assert message.startswith(
    f"{train.path[4]} (train): {what} cannot be read from the prepared copy"
  )
  assert reason in message
  assert "\n" not in message
  assert list(batches) == []


def test_a_record_that_evaluation_cannot_read_is_named(noise_dataset, noise_config):
  gallery = _damage(noise_dataset.gallery, 9, _cut("image"))
  batches = evaluation_batches(gallery, noise_config())
  assert next(batches).mask.all()  # what comes before it is delivered
  with pytest.raises(SourceError, match=f"{gallery.path[9]} .*its image cannot be read"):
    next(batches)


def test_a_damaged_file_of_records_is_an_error_of_the_user(noise_dataset, noise_config, tmp_path):
  prepared = shutil.copytree(noise_config().data.data_dir, tmp_path / "prepared")
  (records,) = prepared.rglob("*train.array_record*")
  content = bytearray(records.read_bytes())
  content[content.index(b"IDAT") + 10] ^= 1
  records.write_bytes(content)
  config = noise_config(data__data_dir=str(prepared))
  with pytest.raises(SourceError, match=r"\(train\): its record cannot be read from .*Corrupted"):
    list(train_batches(dataset.load(config.data), config, stop_step=20))


def test_a_file_system_that_fails_is_worth_another_start(noise_dataset, noise_config):
  def fail(record: dict[str, Any]) -> dict[str, Any]:
    raise OSError("Stale file handle")

  train = _damage(noise_dataset.train, 4, fail)
  with pytest.raises(RuntimeError, match=f"{train.path[4]} .*record .*Stale file handle") as error:
    list(train_batches(noise_dataset._replace(train=train), noise_config()))
  assert not isinstance(error.value, UserError)


def test_an_error_holds_no_thread(noise_dataset, noise_config):
  """Also while it is being handled, or kept in a traceback until Python ends."""
  damage, _ = DAMAGES["its image"]
  train = _damage(noise_dataset.train, 4, damage)
  batches = train_batches(noise_dataset._replace(train=train), noise_config())
  tf_iterator = weakref.ref(batches._running[0]._iterator)
  with pytest.raises(SourceError) as error:
    list(batches)
  assert tf_iterator() is None, error


_PROGRAM = """
import os, signal, sys, time
import numpy as np
from magnifier_jax.data import image_ops
from magnifier_jax.data.batch_iterator import BatchIterator, tf
from magnifier_jax.errors import UserError

kind, image = sys.argv[1], open(sys.argv[2], "rb").read()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it


def load_batch(number):
  if number == 3 and kind == "load":
    raise UserError("cannot load")
  if number > 3:
    time.sleep(0.2)  # so that a thread is in here while Python shuts down
  return (np.array([image[:-30] if number == 3 and kind == "decode" else image] * 4, object),)


def train():
  batches = BatchIterator(
    load_batch, None, (tf.TensorSpec((), tf.string),),
    lambda file: (image_ops.evaluation_image(file, (64, 32)),), lambda *columns: columns,
    lambda number: UserError(f"batch {number}"), 4, 0,
  )
  for step, batch in enumerate(batches):
    if step == 3 and kind == "diverge":
      raise UserError("diverged")
    if step == 3 and kind == "interrupt":
      os.kill(os.getpid(), signal.SIGINT)


if kind.endswith("uncaught"):
  kind = kind.removesuffix(", uncaught")
  train()
try:
  train()
except UserError as error:
  print(error, file=sys.stderr)
  sys.exit(2)
except KeyboardInterrupt:
  sys.exit(130)
"""


@pytest.mark.parametrize(
  ("kind", "code", "said"),
  [
    ("decode", 2, "batch 3"),
    ("interrupt", 130, ""),
    # The others repeat it for the other ways out; each process imports TensorFlow.
    pytest.param("load", 2, "cannot load", marks=pytest.mark.slow),
    pytest.param("diverge", 2, "diverged", marks=pytest.mark.slow),
    pytest.param("decode, uncaught", 1, "batch 3", marks=pytest.mark.slow),
  ],
)
def test_the_process_ends_with_its_exit_code(
  repository: Path, tmp_path: Path, kind: str, code: int, said: str
):
  buffer = io.BytesIO()
  Image.effect_noise((32, 64), 50).save(buffer, "PNG")
  (tmp_path / "image.png").write_bytes(buffer.getvalue())
  done = subprocess.run(
    [sys.executable, "-c", _PROGRAM, kind, tmp_path / "image.png"],
    env={**os.environ, "PYTHONPATH": str(repository)},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == code, done.stderr
  assert said in done.stderr.splitlines()[-1] if said else done.stderr == ""
