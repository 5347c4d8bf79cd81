"""A run that an earlier version stored is opened and resumed by this one.

`stored_run.tar.xz` is the workdir of a run of commit a5118aa: two updates of a network of few
channels (`stored_architecture`) on the noise images of `data/noise_tree.py`, and what that version
expected: embeddings of random images by the stored network, and the log of four updates. A change
that no longer opens it needs a migration, or a line in `docs/` that says from which version on
workdirs can be read.
"""

import dataclasses
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from magnifier_jax.config import Config
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.train import train
from magnifier_jax.trained_network import open_trained_network
from magnifier_jax.workdir.checkpoints import CheckpointError, Checkpoints
from magnifier_jax.workdir.metrics_log import read_records
from tests.data.noise_tree import write_tree
from tests.stored_architecture import stored_architecture

STORED = Path(__file__).with_name("stored_run.tar.xz")


@pytest.fixture
def workdir(tmp_path: Path) -> Iterator[Path]:
  """The stored run, and the architecture of its network."""
  with tarfile.open(STORED) as archive:
    archive.extractall(tmp_path, filter="data")
  with stored_architecture():
    yield tmp_path


def longer(config: Config, images: Path) -> Config:
  """Returns the stored config with another epoch, and images in another place."""
  data = dataclasses.replace(config.data, manual_dir=str(images), data_dir=str(images / "prepared"))
  return dataclasses.replace(
    config, data=data, training=dataclasses.replace(config.training, num_epochs=2)
  )


def losses(records: list[dict[str, float]]) -> dict[int, float]:
  """Returns {step: total loss}."""
  return {int(r["step"]): r["loss/total"] for r in records if "loss/total" in r}


def test_its_network_opens_and_embeds_as_it_did(workdir: Path):
  trained = open_trained_network(workdir)
  assert (trained.step, trained.record.num_people, trained.best) == (2, 4, False)
  height, width = trained.config.data.image_size_hw
  images = np.random.default_rng(0).integers(0, 256, (8, height, width, 3), np.uint8)

  @jax.jit
  def embed(images: np.ndarray) -> jax.Array:
    output, _ = trained.network.apply(trained.params, trained.batch_stats, images, train=False)
    return jax.numpy.concatenate(list(output.embeddings().values()), axis=1)

  expected = np.load(workdir / "expected" / "embeddings.npy")
  np.testing.assert_allclose(embed(images), expected, rtol=1e-3, atol=1e-5)


def test_published_numbers_are_no_longer_of_its_config(workdir: Path):
  [record] = (workdir / "checkpoints" / "2" / "run").glob("metadata")
  assert {"published", "published_source"} <= json.loads(record.read_text())["config"].keys()
  config = Checkpoints(workdir, read_only=True).read_run(2).config
  assert not {"published", "published_source"} & config.keys()


def test_its_best_checkpoint_opens_too(workdir: Path):
  assert open_trained_network(workdir, "best").best
  (workdir / "checkpoints" / "2" / "metrics.json").unlink()
  unevaluated = open_trained_network(workdir, "best")
  assert (unevaluated.step, unevaluated.best) == (2, False)


def test_a_config_with_other_fields_is_of_another_version(
  workdir: Path, monkeypatch: pytest.MonkeyPatch
):
  record = Checkpoints(workdir, read_only=True).read_run(2)
  other = record._replace(config=record.config | {"colour": "red"})
  monkeypatch.setattr(Checkpoints, "read_run", lambda self, step: other)
  with pytest.raises(CheckpointError, match=r"another version of this program.*config\.colour"):
    open_trained_network(workdir)


def test_an_evaluation_has_its_own_data_and_arithmetic_and_the_network_of_the_run(workdir: Path):
  stored = open_trained_network(workdir).config
  data = dataclasses.replace(stored.data, dataset="market1501", image_size_hw=(384, 192))
  given = dataclasses.replace(
    stored,
    dtype="bfloat16",
    model=dataclasses.replace(stored.model, fusion_cell="gru"),
    data=data,
    loss=dataclasses.replace(stored.loss, triplet_margin=0.5),
    evaluation=dataclasses.replace(stored.evaluation, flip=True),
  )
  trained = open_trained_network(workdir, config=given)
  assert trained.config == dataclasses.replace(
    stored,
    dtype="bfloat16",
    data=dataclasses.replace(stored.data, dataset="market1501"),
    evaluation=given.evaluation,
  )
  assert trained.network.dtype == "bfloat16"


def test_it_is_resumed(workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  images = tmp_path / "images"
  write_tree(images, train_images=(4, 4, 4, 4), test_people=4)
  one_device = mesh_lib.data_mesh(jax.devices()[:1])
  monkeypatch.setattr(mesh_lib, "data_mesh", lambda: one_device)
  train(longer(open_trained_network(workdir).config, images), workdir)
  lines = (workdir / "expected" / "metrics.jsonl").read_text().splitlines()
  expected = losses([json.loads(line) for line in lines])
  found = losses(read_records(workdir))
  assert found.keys() == expected.keys() == {1, 2, 3, 4}
  np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-3)
  assert Checkpoints(workdir, read_only=True).intact_step() == 4
