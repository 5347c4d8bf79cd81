"""Two updates on every data set, from its config file."""

import importlib
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from magnifier_jax import mesh as mesh_lib
from magnifier_jax.config import Config
from magnifier_jax.data import dataset
from magnifier_jax.data.pipeline import evaluation_batches, train_batches
from magnifier_jax.train_step import Batch, Trainer, create_trainer

from .noise_tree import write_images

_PEOPLE = ("0001", "0002", "0003", "0004")


@pytest.fixture(scope="module")
def mesh() -> Mesh:
  """Eight devices that share two cores would only take longer."""
  return mesh_lib.data_mesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def trainer(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
  """Compiled once: but for the data, the configs are the same."""
  return create_trainer(_tiny_config("cuhk03", tmp_path_factory.mktemp("none")), 4, 2, mesh)


def _tiny_config(name: str, manual_dir: Path) -> Config:
  """Returns the config of a file and variant, for 4 people, 32 × 32 pixels and one branch."""
  file, _, variant = name.partition(":")
  get_config = importlib.import_module(f"configs.{file}").get_config
  config = get_config(f"{variant},small" if variant else "small")
  config.data.update(
    manual_dir=str(manual_dir),
    data_dir=str(manual_dir / "prepared"),
    image_size_hw=(32, 32),
    identities_per_batch=2,
    images_per_identity=2,
  )
  config.model.update(adversarial_branch=False, fusion_branch=False, part_segmentation=False)
  config.evaluation.batch_size = 2
  return Config.from_config_dict(config)


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
  assert files - {"synthetic"} == {name.partition(":")[0] for name in _DATA_SETS}


@pytest.mark.parametrize("name", _DATA_SETS)
def test_two_updates(tmp_path: Path, mesh: Mesh, trainer: Trainer, name: str):
  _DATA_SETS[name](tmp_path)
  config = _tiny_config(name, tmp_path)
  data = dataset.load(config.data)
  batches = train_batches(data, config, stop_step=2)
  state = trainer.init(config.seed)
  losses = []
  for batch in mesh_lib.prefetch((Batch(*batch) for batch in batches), mesh):
    state, metrics = trainer.step(state, batch)
    losses.append(float(metrics.losses.total))
  assert len(losses) == 2
  assert np.isfinite(losses).all()
  for split in (data.query, data.gallery):
    (batch,) = evaluation_batches(split, config)
    assert batch.image[0].any()
