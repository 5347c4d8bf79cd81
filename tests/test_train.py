"""Whole runs on noise images: repeatable, resumable, and safe when something breaks."""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config, ConfigError
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.devices.mesh import DeviceError
from magnifier_jax.devices.preemption import Preempted, Preemption
from magnifier_jax.evaluate import evaluate_run
from magnifier_jax.evaluation.embeddings_file import EmbeddingsFileError
from magnifier_jax.files.disk_space import DiskFullError
from magnifier_jax.train import DivergenceError, train
from magnifier_jax.train_state import TrainState
from magnifier_jax.trained_network import open_trained_network
from magnifier_jax.workdir.checkpoints import CheckpointError, Checkpoints
from magnifier_jax.workdir.lock import WorkdirInUseError, locked
from magnifier_jax.workdir.metrics_log import read_records

from .compiled_once import compiled_once, no_report
from .data.noise_tree import write_tree

MakeConfig = Callable[..., Config]
ALL_DEVICES = mesh_lib.data_mesh


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
  """Eight devices that share two cores only take longer; test_device_counts.py compares them."""
  with compiled_once(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(mesh_lib, "data_mesh", lambda: ALL_DEVICES(jax.devices()[:1]))
    yield


@pytest.fixture
def unreported() -> Iterator[None]:
  """For tests that do not read the report."""
  with no_report():
    yield


@pytest.fixture(scope="module")
def make_config(tmp_path_factory: pytest.TempPathFactory) -> MakeConfig:
  """Makes configs of a tiny run: 4 people, a batch of 8, 2 steps an epoch, 2 epochs."""
  manual_dir = tmp_path_factory.mktemp("noise")
  write_tree(manual_dir, train_images=(4, 4, 4, 4), test_people=4)

  def make(**overrides: Any) -> Config:
    config = get_config("small")
    config.data.update(
      manual_dir=str(manual_dir),
      data_dir=str(manual_dir / "prepared"),
      image_size_hw=(64, 32),
      identities_per_batch=4,
      images_per_identity=2,
    )
    config.model.update(backbone="resnet10_narrow", adversarial_dim=16, fusion_dim=16)
    config.training.update(num_epochs=2, log_every_steps=1)
    config.evaluation.update(every_epochs=1, batch_size=8, initial=False)
    config.optimizer.ema_decay = 0.5  # the state has one tree more; else it is the same
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    return Config.from_config_dict(config)

  return make


@pytest.fixture(scope="module")
def finished(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """The workdir of a run from start to end."""
  workdir = tmp_path_factory.mktemp("finished")
  train(make_config(), workdir)
  return workdir


def losses(workdir: Path) -> list[dict[str, float]]:
  """The records of training steps, without what depends on the clock."""
  return [
    {name: value for name, value in record.items() if name != "images_per_second"}
    for record in read_records(workdir)
    if "loss/total" in record
  ]


def arrays(workdir: Path) -> dict[str, Any]:
  """The newest checkpoint's arrays."""
  checkpoints = Checkpoints(workdir, read_only=True)
  step = checkpoints.latest_step()
  state = checkpoints._manager.restore(step)["state"]
  names = {"params", "batch_stats", "average"} & state.keys()
  return {"step": step} | {name: state[name] for name in names}


def assert_same_bits(a: Any, b: Any) -> None:
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_run_leaves_its_results(finished: Path):
  assert [record["step"] for record in losses(finished)] == [1, 2, 3, 4]
  metrics = json.loads((finished / "metrics.json").read_text())
  rows = [name for name, value in metrics.items() if isinstance(value, dict)]
  assert rows == ["all", "global", "adversarial", "fusion", "thresholds"]
  assert metrics["thresholds"]["whole"][0]["false_accept_rate"] == 0.01
  assert "test people: 4 genuine and 24 impostor pairs" in metrics["thresholds"]["calibrated_on"]
  assert 0 < metrics["all"]["mAP"] <= 1
  assert metrics["all"]["num_queries"] == 4
  assert "<html" in (finished / "report.html").read_text()
  assert list((finished / "tensorboard").iterdir())
  assert json.loads((finished / "config.json").read_text())["num_people"] == 4


@pytest.mark.usefixtures("unreported")
def test_same_seed_gives_the_same_bits(finished: Path, make_config: MakeConfig, tmp_path: Path):
  train(make_config(), tmp_path)
  assert losses(tmp_path) == losses(finished)
  assert_same_bits(arrays(tmp_path), arrays(finished))


@pytest.mark.usefixtures("unreported")
def test_resumed_run_equals_an_uninterrupted_one(
  finished: Path, make_config: MakeConfig, tmp_path: Path
):
  train(make_config(training__num_epochs=1), tmp_path)
  train(make_config(), tmp_path)
  assert losses(tmp_path) == losses(finished)
  assert_same_bits(arrays(tmp_path), arrays(finished))


class PreemptedAfter(Preemption):
  """Asks to save and leave after some updates."""

  def __init__(self, updates: int):
    super().__init__()
    self._left = updates

  def poll(self) -> bool:
    self._left -= 1
    self.agreed = self._left == 0
    return self.agreed


def records(workdir: Path) -> list[dict[str, float]]:
  """Everything in `metrics.jsonl` that does not depend on the clock."""
  return [
    {name: value for name, value in record.items() if name != "images_per_second"}
    for record in read_records(workdir)
  ]


@pytest.mark.usefixtures("unreported")
def test_preempted_run_goes_on_from_exactly_that_step(
  finished: Path, make_config: MakeConfig, tmp_path: Path
):
  # Step 2 is the end of an epoch, whose evaluation is made up for; step 3 is within one.
  with pytest.raises(Preempted, match="step 2 is saved; the same command goes on"):
    train(make_config(), tmp_path, PreemptedAfter(2))
  assert Checkpoints(tmp_path, read_only=True).metrics(2) is None
  with pytest.raises(Preempted, match="step 3 is saved"):
    train(make_config(), tmp_path, PreemptedAfter(1))
  assert arrays(tmp_path)["step"] == 3
  evaluate_run(make_config(), tmp_path)
  assert json.loads((tmp_path / "metrics.json").read_text())["step"] == 3
  train(make_config(), tmp_path)
  assert records(tmp_path) == records(finished)
  assert_same_bits(arrays(tmp_path), arrays(finished))


@pytest.mark.usefixtures("unreported")
def test_run_goes_on_from_before_a_damaged_checkpoint(
  finished: Path, make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture
):
  shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
  newest = tmp_path / "checkpoints" / "4"
  largest = max((newest / "state").rglob("*"), key=lambda path: path.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)
  train(make_config(), tmp_path)
  said = capsys.readouterr().out
  assert "checkpoint of step 4 is damaged and skipped" in said
  assert "resuming from step 2" in said
  assert (tmp_path / "checkpoints" / "4.damaged").is_dir()
  assert records(tmp_path) == records(finished)
  assert_same_bits(arrays(tmp_path), arrays(finished))


@pytest.fixture
def small_disk(tmp_path: Path, finished: Path) -> Iterator[Path]:
  """A file system with room for one checkpoint of the tiny run."""
  folder = tmp_path / "disk"
  folder.mkdir()
  files = (finished / "checkpoints" / "2").rglob("*")
  size = int(1.75 * sum(file.stat().st_blocks * 512 for file in files))
  command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
  if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
    pytest.skip("mounting a tmpfs is not permitted here")
  yield folder
  subprocess.run(["umount", "--lazy", str(folder)], check=True)


# Orbax's writer thread outlives the event loop of the save that failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("unreported")
def test_full_disk_is_said_and_the_earlier_checkpoint_stays(
  finished: Path, make_config: MakeConfig, small_disk: Path
):
  with pytest.raises(DiskFullError, match=r"disk: No space left on device; free some space"):
    train(make_config(), small_disk)
  checkpoints = Checkpoints(small_disk, read_only=True)
  assert checkpoints.intact_step() == 2
  subprocess.run(["mount", "-o", "remount,size=600m", str(small_disk)], check=True)
  train(make_config(), small_disk)
  assert records(small_disk) == records(finished)
  assert_same_bits(arrays(small_disk), arrays(finished))


@pytest.mark.usefixtures("unreported")
def test_another_seed_gives_another_run(finished: Path, make_config: MakeConfig, tmp_path: Path):
  train(make_config(seed=1, training__num_epochs=1), tmp_path)
  assert losses(tmp_path)[0]["loss/total"] != losses(finished)[0]["loss/total"]


@pytest.mark.usefixtures("unreported")
def test_evaluation_finds_what_training_found(
  finished: Path, make_config: MakeConfig, capsys: pytest.CaptureFixture
):
  before = json.loads((finished / "metrics.json").read_text())
  results = evaluate_run(make_config(), finished)["cuhk03_np/labeled"]
  assert json.loads((finished / "metrics.json").read_text()) == before
  assert list(results) == ["all", "global", "adversarial", "fusion"]
  assert "adversarial" in capsys.readouterr().out


def test_the_average_is_what_is_opened(finished: Path):
  stored, opened = arrays(finished), open_trained_network(finished)
  assert_same_bits(opened.params, stored["average"]["params"])
  assert_same_bits(opened.batch_stats, stored["average"]["batch_stats"])
  kernels = [tree["backbone"]["conv1"]["kernel"] for tree in (opened.params, stored["params"])]
  assert not np.array_equal(*kernels)


@pytest.mark.usefixtures("unreported")
def test_saved_embeddings_are_ranked_without_images(
  finished: Path, make_config: MakeConfig, tmp_path: Path
):
  [first] = evaluate_run(make_config(evaluation__save_embeddings=True), finished).values()
  file = finished / "embeddings.npz"
  config = make_config(
    evaluation__embeddings=str(file), evaluation__save_ranking=2, data__manual_dir="/nowhere"
  )
  [again] = evaluate_run(config, tmp_path).values()
  assert {k: v.summary() for k, v in again.items()} == {k: v.summary() for k, v in first.items()}
  _, *ranking = (tmp_path / "ranking.csv").read_text().splitlines()
  assert len(ranking) == 2 * 4
  assert all(line.split(",")[5].endswith(".png") for line in ranking)


@pytest.mark.usefixtures("unreported")
def test_embeddings_say_where_they_come_from(
  finished: Path, make_config: MakeConfig, tmp_path: Path
):
  """The config of the ranking may be of another run; what is said is of the embeddings."""
  evaluate_run(make_config(evaluation__save_embeddings=True, evaluation__flip=True), finished)
  path = finished / "embeddings.npz"

  def said(path: Path) -> list[Any]:
    evaluate_run(make_config(evaluation__embeddings=str(path), name="other"), tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    return [metrics[name] for name in ("config", "step", "flip")]

  assert said(path) == ["cuhk03_small", 4, True]
  with np.load(path) as arrays:  # an earlier version did not write it
    np.savez(tmp_path / "old.npz", **{k: v for k, v in arrays.items() if k != "provenance"})
  assert said(tmp_path / "old.npz") == ["other", None, False]


def test_that_the_test_people_chose_the_checkpoint_is_said_everywhere(
  finished: Path, make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture
):
  shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
  evaluate_run(make_config(evaluation__checkpoint="best"), tmp_path)
  note = "The test people chose this checkpoint"
  assert note in capsys.readouterr().out
  assert note in (tmp_path / "report.html").read_text()
  metrics = json.loads((tmp_path / "metrics.json").read_text())
  assert metrics["checkpoint_chosen_on"] == "test people"


def test_validation_people_do_not_stand_beside_published_numbers(
  make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture
):
  # One branch: the number of people makes this a network of its own, to be compiled.
  small = {
    "data__identities_per_batch": 2,
    "model__adversarial_branch": False,
    "model__fusion_branch": False,
    "model__part_segmentation": False,
  }
  train(make_config(data__validation_people=1, training__num_epochs=1, **small), tmp_path)
  note = "Measured on 1 training people"
  report = (tmp_path / "report.html").read_text()
  said = capsys.readouterr().out
  assert note in said
  assert note in report
  assert "82.4" not in said + report
  assert json.loads((tmp_path / "metrics.json").read_text())["validation_people"] == 1
  # The same network on the test people.
  evaluate_run(make_config(**small), tmp_path)
  report = (tmp_path / "report.html").read_text()
  assert "82.4" in capsys.readouterr().out
  assert "82.4" in report
  differences = " ".join(re.sub("<.*?>", " ", report).split())
  assert "data.validation_people: 1 (the authors: 0)" in differences
  assert json.loads((tmp_path / "metrics.json").read_text())["validation_people"] == 0


@pytest.mark.usefixtures("unreported")
def test_flip_and_reranking_are_rows_of_their_own(
  finished: Path, make_config: MakeConfig, capsys: pytest.CaptureFixture
):
  config = make_config(
    evaluation__rerank=True, evaluation__flip=True, evaluation__rerank_k1=3, evaluation__rerank_k2=2
  )
  [results] = evaluate_run(config, finished).values()
  assert "all, re-ranked" in results
  assert "all, re-ranked" in capsys.readouterr().out


def test_broken_embeddings_file_is_named(make_config: MakeConfig, tmp_path: Path):
  file = tmp_path / "embeddings.npz"
  file.write_bytes(b"no zip")
  config = make_config(evaluation__embeddings=str(file))
  with pytest.raises(EmbeddingsFileError, match=r"embeddings.npz: not an .npz or .mat file"):
    evaluate_run(config, tmp_path / "run")


def test_evaluating_an_empty_workdir_says_so(make_config: MakeConfig, tmp_path: Path):
  with pytest.raises(CheckpointError, match="no checkpoint there; train first"):
    evaluate_run(make_config(), tmp_path / "nothing")
  assert not (tmp_path / "nothing").exists()


def test_workdir_of_another_config_is_refused(finished: Path, make_config: MakeConfig):
  before = arrays(finished)
  config = make_config(loss__triplet_margin=0.5, model__fusion_cell="gru", training__num_epochs=9)
  with pytest.raises(CheckpointError) as caught:
    train(config, finished)
  message = str(caught.value)
  assert "config.loss.triplet_margin: 0.3 there, 0.5 now" in message
  assert "config.model.fusion_cell: 'lstm' there, 'gru' now" in message
  assert "num_epochs" not in message
  assert_same_bits(arrays(finished), before)


@pytest.mark.usefixtures("unreported")
def test_diverging_run_stops_and_keeps_its_checkpoint(
  make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  train(make_config(training__num_epochs=1), tmp_path)
  before = arrays(tmp_path)

  def restore_broken(self: Checkpoints, step: int, target: TrainState) -> TrainState:
    state = restore(self, step, target)
    return state._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, state.params))

  restore = Checkpoints.restore
  monkeypatch.setattr(Checkpoints, "restore", restore_broken)
  with pytest.raises(DivergenceError, match=r"step 3: loss/total, loss/global_id,") as error:
    train(make_config(), tmp_path)
  assert "the checkpoint of step 2 is intact" in str(error.value)
  assert_same_bits(arrays(tmp_path), before)


def test_more_people_a_batch_than_there_are_is_refused(make_config: MakeConfig, tmp_path: Path):
  config = make_config(data__identities_per_batch=8)
  with pytest.raises(ConfigError, match=r"identities_per_batch: 8 people a batch, but .* has 4"):
    train(config, tmp_path)


def test_batch_that_the_devices_do_not_divide_is_refused(
  make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr(mesh_lib, "data_mesh", ALL_DEVICES)
  with pytest.raises(DeviceError, match=r"a batch of 12 images cannot be split over 8 devices"):
    train(make_config(data__images_per_identity=3), tmp_path)
  with pytest.raises(DeviceError, match=r"config.evaluation.batch_size: a batch of 12"):
    train(make_config(evaluation__batch_size=12), tmp_path)


def test_a_second_run_in_one_workdir_is_refused(
  finished: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
):
  at_once = functools.partial(locked, patience_s=0)
  monkeypatch.setattr("magnifier_jax.train.locked", at_once)
  half_written = finished / "checkpoints" / "9.orbax-checkpoint-tmp"
  half_written.mkdir()
  with locked(finished, pytest.fail):
    before = (finished / "metrics.jsonl").read_bytes()
    with pytest.raises(WorkdirInUseError, match=rf"{finished}: in use by process {os.getpid()} on"):
      train(make_config(training__num_epochs=3), finished)
    assert (finished / "metrics.jsonl").read_bytes() == before
    # Evaluation only reads.
    [results] = evaluate_run(make_config(), finished).values()
    assert results["all"].num_queries == 4
    assert half_written.exists()
  half_written.rmdir()
