"""A run of two updates on every data set, from its config file."""

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from magnifier_jax.config_argument import load_config
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.train import train
from tests.compiled_once import compiled_once, no_report

from .noise_tree import write_images

_PEOPLE = ("0001", "0002", "0003", "0004")
# 4 people, 32 × 32 pixels and one branch, so that one compilation serves every data set.
_TINY = (
  "--config.data.image_size_hw=(32, 32)",
  "--config.data.identities_per_batch=2",
  "--config.data.images_per_identity=2",
  "--config.model.backbone=resnet10_narrow",
  "--config.model.adversarial_branch=False",
  "--config.model.fusion_branch=False",
  "--config.model.part_segmentation=False",
  "--config.training.num_epochs=1",
  "--config.training.steps_per_epoch=2",
  "--config.training.log_every_steps=1",
  "--config.evaluation.every_epochs=1",
  "--config.evaluation.initial=False",
  "--config.evaluation.batch_size=2",
)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
  """One device and no report: but for the data, the configs are the same."""
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  with compiled_once(), no_report(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(mesh_lib, "data_mesh", lambda devices=None: mesh)
    yield


def _write_split_folders(root: Path, ending: str) -> None:
  images = [f"bounding_box_train/{p}_c{c}{ending}" for p in _PEOPLE for c in (1, 2)]
  images += [f"query/0005_c1{ending}", f"bounding_box_test/0005_c2{ending}"]
  labels = root.parent if root.name == "labeled" else root
  labels = labels.with_name(f"{labels.name}_ps_label")
  write_images(root, images, labels / "labeled" if root.name == "labeled" else labels)


def _write_msmt17(root: Path) -> None:
  lists = {
    "train": [(f"{p}/{p}_00{c}_0{c}_x.jpg", i) for i, p in enumerate(_PEOPLE) for c in (1, 2)],
    "query": [("0000/0000_000_01_x.jpg", 0)],
    "gallery": [("0000/0000_001_02_x.jpg", 0)],
  }
  for split, rows in lists.items():
    folder = "train" if split == "train" else "test"
    write_images(
      root, [f"{folder}/{path}" for path, _ in rows], root.with_name("MSMT17_V1_ps_label")
    )
    (root / f"list_{split}.txt").write_text("".join(f"{path} {i}\n" for path, i in rows))


_DATA_SETS = {
  "cuhk03": lambda root: _write_split_folders(root / "cuhk03-np" / "labeled", "_1.png"),
  "custom": lambda root: _write_split_folders(root / "my_images", ".jpg"),
  "dukemtmc": lambda root: _write_split_folders(root / "DukeMTMC-reID", "_f0046302.jpg"),
  "dukemtmc:occluded": lambda root: _write_split_folders(root / "Occluded_Duke", "_f0046302.jpg"),
  "market1501": lambda root: _write_split_folders(
    root / "Market-1501-v15.09.15", "s1_000451_03.jpg"
  ),
  "msmt17": lambda root: _write_msmt17(root / "MSMT17_V1"),
}


def test_every_config_file_of_a_data_set_is_here(repository: Path):
  files = {file.stem for file in (repository / "configs").glob("*.py")}
  assert files - {"synthetic", "joint"} == {name.partition(":")[0] for name in _DATA_SETS}


@pytest.mark.parametrize("name", _DATA_SETS)
def test_training_starts(tmp_path: Path, repository: Path, name: str):
  _DATA_SETS[name](tmp_path)
  file, _, variant = name.partition(":")
  config = load_config(
    f"{repository / 'configs' / file}.py:{variant + ',' if variant else ''}small",
    [
      *_TINY,
      f"--config.data.manual_dir={tmp_path}",
      f"--config.data.data_dir={tmp_path / 'prepared'}",
    ],
  )
  train(config, tmp_path / "run")
  lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  records = [record for record in map(json.loads, lines) if "loss/total" in record]
  losses = {record["step"]: record["loss/total"] for record in records}
  assert losses.keys() == {1, 2}
  assert np.isfinite(list(losses.values())).all()
  metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
  assert metrics["step"] == 2
