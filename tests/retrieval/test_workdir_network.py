"""The network of a workdir embeds as its evaluation does, from files, without TensorFlow."""

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orbax.checkpoint
import pytest

import magnifier_jax
from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.embed_dataset import DatasetEmbedder
from magnifier_jax.evaluation.thresholds import THRESHOLDS, ThresholdError
from magnifier_jax.export.results import calibrated_thresholds
from magnifier_jax.retrieval.embedder import Embedder, thresholds_of
from magnifier_jax.trained_network import TrainedNetwork, open_trained_network
from magnifier_jax.weights.digest import weights_sha256
from magnifier_jax.workdir.checkpoints import CheckpointError, Checkpoints
from tests.data.noise_tree import image_file, write_tree
from tests.retrieval.fake_network import THRESHOLDS as SOME_THRESHOLDS
from tests.stored_architecture import stored_architecture
from tests.test_stored_run import STORED, longer


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
  """The stored run, and the architecture of its network."""
  folder = tmp_path_factory.mktemp("run")
  with tarfile.open(STORED) as archive:
    archive.extractall(folder, filter="data")
  (folder / "metrics.json").unlink(missing_ok=True)
  with stored_architecture():
    yield folder


@pytest.fixture(scope="module")
def trained(workdir: Path) -> TrainedNetwork:
  """Its network."""
  return open_trained_network(workdir)


@pytest.fixture(scope="module")
def network(workdir: Path) -> Embedder:
  """Its network, to be used."""
  return magnifier_jax.load(workdir, batch_size=8)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_files_are_embedded_as_evaluation_embeds_them(
  network: Embedder, trained: TrainedNetwork, tmp_path: Path, suffix: str
):
  write_tree(tmp_path, train_images=(2, 2), test_people=5, suffix=suffix)
  config = longer(trained.config, tmp_path)
  dataset = dataset_lib.load(config.data)
  evaluation = DatasetEmbedder(config, dataset, trained.network, mesh_lib.data_mesh())
  expected = evaluation.embeddings(trained.params, trained.batch_stats).gallery.whole()
  folder = image_file(tmp_path, "gallery").parent
  found = [folder / Path(path).name for path in dataset.gallery.path]
  embedded = network.embed(found)
  assert not embedded.failed
  # Pillow's resize differs by a level of 256 in places; noise enlarged shows it most.
  assert np.square(embedded.whole - expected).sum(axis=1).max() < 1e-4
  others = np.square(embedded.whole - np.roll(expected, 1, axis=0)).sum(axis=1)
  assert others.min() > 1e-3


def test_it_says_what_it_is(network: Embedder, trained: TrainedNetwork, workdir: Path):
  assert network.network.weights_sha256 == weights_sha256(trained.params, trained.batch_stats)
  assert network.network.image_size_hw == trained.config.data.image_size_hw
  assert list(network.network.branches) == ["global", "adversarial", "fusion"]
  assert network.network.description.endswith(f"step 2, of {workdir}")
  assert network.embed([]).whole.shape[1] == sum(network.network.branches.values())


def test_thresholds_count_for_the_checkpoint_that_they_are_of(workdir: Path):
  metrics = workdir / "metrics.json"
  images = np.zeros((2, 8, 8, 3), np.uint8)
  with pytest.raises(ThresholdError, match="this checkpoint was not evaluated"):
    magnifier_jax.load(workdir).same_person(*images)
  try:
    metrics.write_text(json.dumps({"step": 1, THRESHOLDS: SOME_THRESHOLDS}))
    with pytest.raises(ThresholdError, match="this checkpoint was not evaluated"):
      magnifier_jax.load(workdir).same_person(*images)
    metrics.write_text(json.dumps({"step": 2, THRESHOLDS: SOME_THRESHOLDS}))
    assert magnifier_jax.load(workdir).thresholds.at(1e-3).distance_threshold == 0.05
    metrics.write_text("{")
    with pytest.raises(ThresholdError, match=r"metrics\.json: cannot be read"):
      magnifier_jax.load(workdir)
  finally:
    metrics.unlink()


def test_a_joint_run_has_thresholds_of_each_data_set(workdir: Path):
  """It has no results of its own; `tested_on` has those of each data set."""
  folders = {
    "market1501": workdir / "tested_on" / "market1501",
    "own/a": workdir / "tested_on/own_a",
  }

  def write(name: str, folder: Path, step: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = SOME_THRESHOLDS | {"calibrated_on": f"{name}, test people: 3 pairs"}
    metrics = {"step": step, "dataset": name, THRESHOLDS: content}
    (folder / "metrics.json").write_text(json.dumps(metrics))

  def calibrated_on(data_set: str | None) -> str:
    found = calibrated_thresholds(workdir, step=2)
    return thresholds_of(found, "run", data_set).calibrated_on

  try:
    write("market1501", folders["market1501"])
    write("own/a", folders["own/a"], step=1)  # of another checkpoint
    assert calibrated_on(None) == "market1501, test people: 3 pairs"
    write("own/a", folders["own/a"])
    with pytest.raises(ThresholdError, match="calibrated on market1501, own/a; say on which"):
      calibrated_on(None)
    assert calibrated_on("own/a") == "own/a, test people: 3 pairs"
    with pytest.raises(ThresholdError, match="there are none of msmt17"):
      calibrated_on("msmt17")
    loaded = magnifier_jax.load(workdir, calibrated_on="market1501")
    assert loaded.thresholds.calibrated_on.startswith("market1501, ")
    write("cuhk03", workdir)  # what a run was trained on is its default
    assert calibrated_on(None).startswith("cuhk03, ")
  finally:
    shutil.rmtree(workdir / "tested_on")
    (workdir / "metrics.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
  ("owner", "method"),
  [
    (Checkpoints, "read_run"),
    (Checkpoints, "_check_weights"),
    (orbax.checkpoint.PyTreeCheckpointer, "restore"),
  ],
)
def test_a_checkpoint_that_is_deleted_while_it_is_read_is_one_line(
  workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
):
  copy = tmp_path / "run"
  shutil.copytree(workdir, copy)
  read = getattr(owner, method)

  def delete_and_read(*arguments):
    shutil.rmtree(copy / "checkpoints" / "2")
    return read(*arguments)

  monkeypatch.setattr(owner, method, delete_and_read)
  message = r"checkpoints/2: the folder is gone; it was whole a moment ago: do not change a workdir"
  with pytest.raises(CheckpointError, match=message) as error:
    open_trained_network(copy)
  assert "\n" not in str(error.value)


def test_a_folder_without_a_checkpoint_is_one_line(tmp_path: Path):
  with pytest.raises(CheckpointError, match="no checkpoint there"):
    magnifier_jax.load(tmp_path)
