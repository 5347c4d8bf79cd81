"""Training on several data sets whose numbers of people and cameras collide."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from configs.cuhk03 import get_config
from magnifier_jax.comparison.runs import compare
from magnifier_jax.config import Config, ConfigError
from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.data.pipeline import train_batches
from magnifier_jax.data.records import SourceError
from magnifier_jax.data.training_set import TrainingSet, training_set
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.evaluate import evaluate_run
from magnifier_jax.train import train
from magnifier_jax.workdir.checkpoints import Checkpoints
from magnifier_jax.workdir.metrics_log import read_records

from .compiled_once import compiled_once
from .data.noise_tree import write_images
from .test_train import arrays, assert_same_bits, losses

MakeConfig = Callable[..., Config]
EAST, WEST = "image_list/east", "image_list/west"
PEOPLE = {"east": (1_000_001, 1_000_002, 2_000_000_000), "west": (1_000_001, 1_000_002)}


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
  """`test_device_counts.py` trains on two data sets on several."""
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  with compiled_once(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(mesh_lib, "data_mesh", lambda *_: mesh)
    yield


@pytest.fixture(scope="module")
def make_config(tmp_path_factory: pytest.TempPathFactory) -> MakeConfig:
  """Makes configs of a tiny run on two data sets; the second has no part labels."""
  manual_dir = tmp_path_factory.mktemp("data_sets")
  for place, people in PEOPLE.items():
    images = [f"train/{person}_c{1 + i % 2}_{place}{i}.png" for person in people for i in range(4)]
    for person in (7, 8):
      images += [f"{side}/{person}_c{camera}_{place}.png" for side, camera in SIDES]
    labels = manual_dir / f"{place}_ps_label" if place == "east" else None
    write_images(manual_dir / place, images, labels)
  write_images(manual_dir / "nobody", ["query/1_c1_1.png", "gallery/1_c2_1.png"])

  def make(**changes: Any) -> Config:
    config = get_config("small")
    config.name = "joint"
    config.data.update(
      dataset=f"('{EAST}', '{WEST}')",
      manual_dir=str(manual_dir),
      data_dir=str(manual_dir / "prepared"),
      image_size_hw=(64, 32),
      identities_per_batch=4,
      images_per_identity=2,
      missing_part_labels="('refuse', 'bands')",
      mixing="equal",
    )
    config.model.update(backbone="resnet10_narrow", adversarial_dim=16, fusion_dim=16)
    config.training.update(num_epochs=2, log_every_steps=1)
    config.evaluation.update(every_epochs=1, batch_size=8, initial=False)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return Config.from_config_dict(config)

  return make


SIDES = (("query", 1), ("gallery", 2))


def load(config: Config) -> TrainingSet:
  return training_set([dataset_lib.load(config.data.of(name)) for name in config.data.datasets])


def test_people_and_cameras_are_kept_apart(make_config: MakeConfig):
  joint = load(make_config())
  assert joint.train.num_people == 5
  assert joint.dataset_of_person.tolist() == [0, 0, 0, 1, 1]
  assert set(joint.train.camera_id) == {0, 1, 2, 3}
  assert [tuple(count) for count in joint.counts] == [(EAST, 12, 3, 2), (WEST, 8, 2, 2)]
  assert str(joint.counts[0]) == f"{EAST}: 12 images of 3 people from 2 cameras"
  assert len(joint.train) == len(joint.train.path) == 20
  for row, (path, person) in enumerate(zip(joint.train.path, joint.train.person_id)):
    name, place = (EAST, "east") if row < 12 else (WEST, "west")
    number = PEOPLE[place][person - 3 * (place == "west")]
    assert path.startswith(f"{name}: train/{number}_c")
    assert place in path
    alone = dataset_lib.load(make_config().data.of(name)).train
    assert joint.train.encoded(row) == alone.encoded(row - 12 * (place == "west"))


def test_one_data_set_is_what_it_was(make_config: MakeConfig):
  config = make_config(data__dataset=EAST, data__missing_part_labels="refuse")
  alone = dataset_lib.load(config.data)
  assert training_set([alone]).train is alone.train


@pytest.mark.parametrize("mixing", ["proportional", "equal", "one_dataset"])
def test_processes_make_parts_of_the_same_batches(make_config: MakeConfig, mixing: str):
  config = make_config(data__mixing=mixing, data__identities_per_batch=2)
  joint = load(config)
  whole = list(train_batches(joint, config, 0, 6))
  for process in (0, 1):
    rows = slice(2 * process, 2 * process + 2)
    # From the third update on, as after an interruption.
    for batch, there in zip(train_batches(joint, config, 2, 6, process, 2), whole[2:], strict=True):
      for part, of_all in zip(batch, there, strict=True):
        np.testing.assert_array_equal(part, of_all[rows])


@pytest.fixture(scope="module")
def finished(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """The workdir of a run from start to end."""
  workdir = tmp_path_factory.mktemp("finished")
  train(make_config(), workdir)
  return workdir


def test_each_test_set_has_its_results(finished: Path, make_config: MakeConfig, capsys):
  assert not (finished / "metrics.json").exists()
  means = []
  for name in (EAST, WEST):
    folder = finished / "tested_on" / name.replace("/", "_")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["dataset"], metrics["trained_on"]) == (name, [EAST, WEST])
    report = (folder / "report.html").read_text()
    assert f"Trained on {EAST} + {WEST}, tested on {name}." in report
    words = " ".join(report.replace("<span>", "").replace("</span>", "").split())
    for count in ("12 images of 3 people from 2 cameras", "8 images of 2 people from 2 cameras"):
      assert count in words
    means.append(metrics["all"]["mAP"])
  last = [record for record in read_records(finished) if "eval/mAP" in record][-1]
  assert [last[f"eval/{name}/mAP"] for name in (EAST, WEST)] == means
  assert last["eval/mAP"] == pytest.approx(np.mean(means))
  checkpoints = Checkpoints(finished, read_only=True)
  assert checkpoints.metrics(checkpoints.latest_step())["mAP"] == pytest.approx(np.mean(means))
  assert [comparison.dataset for comparison in compare([finished])] == [EAST, WEST]
  # The same numbers again, and one of them by its own config.
  results = evaluate_run(make_config(), finished)
  assert [results[name]["all"].mAP for name in (EAST, WEST)] == means
  one = make_config(data__dataset=WEST, data__missing_part_labels="bands")
  assert evaluate_run(one, finished)[WEST]["all"].mAP == means[1]


def test_counts_are_said(make_config: MakeConfig, finished: Path, capsys: pytest.CaptureFixture):
  train(make_config(), finished)  # nothing is left to do
  said = capsys.readouterr().out
  assert f"  {EAST}: 12 images of 3 people from 2 cameras\n" in said
  assert f"  {WEST}: 8 images of 2 people from 2 cameras\n" in said
  assert "joint: 20 images of 5 people, 8 a batch" in said


def test_resumed_run_equals_an_uninterrupted_one(
  finished: Path, make_config: MakeConfig, tmp_path: Path
):
  train(make_config(training__num_epochs=1), tmp_path)
  train(make_config(), tmp_path)
  assert losses(tmp_path) == losses(finished)
  assert_same_bits(arrays(tmp_path), arrays(finished))


@pytest.mark.parametrize(
  ("changes", "error", "message"),
  [
    (
      {"data__dataset": f"('{EAST}', 'market1500')", "data__missing_part_labels": "bands"},
      ConfigError,
      r"config\.data\.dataset: no data set is called 'market1500'; choose from",
    ),
    (
      {"data__dataset": f"('{EAST}', 'image_list/nobody')", "data__missing_part_labels": "bands"},
      SourceError,
      r"nobody/train: no images there",
    ),
    (
      {"data__identities_per_batch": 3},
      ConfigError,
      r"3 people cannot be shared equally by 2 data",
    ),
  ],
)
def test_what_cannot_be_trained_on_is_one_line(
  make_config: MakeConfig, tmp_path: Path, changes: dict, error: type, message: str
):
  with pytest.raises(error, match=message) as raised:
    train(make_config(**changes), tmp_path / "run")
  assert "\n" not in str(raised.value)
  assert not (tmp_path / "run").exists()


def test_a_data_set_of_junk_alone_has_nothing_to_train_on(make_config: MakeConfig):
  east = dataset_lib.load(make_config().data.of(EAST))
  nothing = east._replace(train=east.train.subset("train", np.zeros(12, bool)), name="junk")
  with pytest.raises(
    SourceError, match=r"junk: no image to train on; leave it out of config\.data"
  ):
    training_set([east, nothing])


def test_tools_of_one_data_set_say_so(make_config: MakeConfig):
  with pytest.raises(
    ConfigError, match=r"several data sets, .*--config\.data\.dataset=image_list/e"
  ):
    dataset_lib.find_builder(make_config().data)
