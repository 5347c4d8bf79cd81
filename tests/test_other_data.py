"""A network that is measured on data that it was not trained on."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from configs.cuhk03 import get_config
from magnifier_jax.comparison.runs import compare
from magnifier_jax.comparison.tables import as_json, as_text
from magnifier_jax.config import Config, ConfigError
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.evaluate import evaluate_run
from magnifier_jax.interop.state_dict import to_state_dict
from magnifier_jax.interop.weights_file import WeightsFile
from magnifier_jax.models.network import create_network
from magnifier_jax.weights.workdir_weights import write_workdir
from tests.data.noise_tree import write_images, write_tree

MakeConfig = Callable[..., Config]
CUHK03, SHOP = "cuhk03_np/labeled", "image_list/shop"


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
  """Eight devices that share two cores only take longer."""
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mesh_lib, "data_mesh", lambda *_: mesh)
    yield


@pytest.fixture(scope="module")
def make_config(tmp_path_factory: pytest.TempPathFactory) -> MakeConfig:
  """Makes configs of a tiny network, and of two data sets that are there."""
  manual_dir = tmp_path_factory.mktemp("data_sets")
  write_tree(manual_dir, train_images=(2, 2), test_people=3)
  names = [f"train/{person}_c1_{i}.png" for person in (1, 2) for i in (1, 2)]
  for person in (7, 8):
    names += [f"query/{person}_c1_1.png", f"gallery/{person}_c2_1.png"]
  write_images(manual_dir / "shop", names)

  def make(**changes: Any) -> Config:
    config = get_config("small")
    config.data.update(
      manual_dir=str(manual_dir),
      data_dir=str(manual_dir / "prepared"),
      image_size_hw=(64, 32),
      missing_part_labels="bands",
    )
    config.model.update(backbone="resnet10_narrow", adversarial_dim=8, fusion_dim=8)
    config.evaluation.batch_size = 8
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return Config.from_config_dict(config)

  return make


@pytest.fixture
def workdir(make_config: MakeConfig, tmp_path: Path) -> Path:
  """A network as a run in bfloat16 on CUHK03 leaves it, drawn instead of trained."""
  config = make_config(dtype="bfloat16")
  _, init = create_network(config, num_people=2)
  params, batch_stats = jax.device_get(jax.jit(init)(jax.random.key(0)))
  weights = WeightsFile(Path("drawn"), "", to_state_dict(params, batch_stats))
  write_workdir(config, weights, tmp_path / "run")
  return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
  """Returns all files of a folder, without those in folders."""
  return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_another_data_set_has_results_of_its_own(
  workdir: Path, make_config: MakeConfig, capsys: pytest.CaptureFixture
):
  [own] = evaluate_run(make_config(), workdir).values()
  before = contents(workdir)
  capsys.readouterr()
  # The config is of another network and of another training; neither is used.
  given = make_config(
    data__dataset=SHOP,
    data__image_size_hw=(96, 32),
    model__fusion_cell="gru",
    loss__triplet_margin=0.7,
    evaluation__save_embeddings=True,
  )
  results = evaluate_run(given, workdir)
  assert list(results) == [SHOP]
  assert results[SHOP]["all"].num_queries == 2
  assert own["all"].num_queries == 3
  assert contents(workdir) == before
  folder = workdir / "tested_on" / "image_list_shop"
  assert contents(folder).keys() == {"metrics.json", "report.html", "embeddings.npz"}
  metrics = json.loads((folder / "metrics.json").read_text())
  assert (metrics["dataset"], metrics["trained_on"]) == (SHOP, CUHK03)
  said, report = capsys.readouterr().out, (folder / "report.html").read_text()
  for text in (said, report):
    assert f"Trained on {CUHK03}, tested on {SHOP}." in text
    assert "Evaluated in float32, trained in bfloat16." in text
    assert "82.4" not in text  # published on CUHK03
  assert f"cuhk03_small: trained on {CUHK03}, tested on {SHOP}</h1>" in report
  assert "note: the network is the run's, resnet10_narrow at 64 × 32; model, data.image" in said


def test_embeddings_of_other_data_are_ranked_into_their_folder(
  workdir: Path, make_config: MakeConfig
):
  shop = make_config(data__dataset=SHOP, evaluation__save_embeddings=True)
  first = evaluate_run(shop, workdir)
  file = workdir / "tested_on" / "image_list_shop" / "embeddings.npz"
  (workdir / "metrics.json").write_text('{"config": "", "dataset": "", "all": {}}')
  before = contents(workdir)
  again = evaluate_run(make_config(evaluation__embeddings=str(file)), workdir)
  assert contents(workdir) == before
  assert again[SHOP]["all"].summary() == first[SHOP]["all"].summary()


def test_several_test_sets_in_one_call_and_in_the_comparison(
  workdir: Path, make_config: MakeConfig
):
  results = evaluate_run(make_config(data__dataset=f"('{SHOP}', '{CUHK03}')"), workdir)
  assert list(results) == [SHOP, CUHK03]
  assert (workdir / "metrics.json").exists()
  comparisons = compare([workdir])
  assert [comparison.dataset for comparison in comparisons] == [CUHK03, SHOP]
  for comparison in comparisons:
    [group] = comparison.groups
    assert group.statistic("all", "mAP").mean == results[comparison.dataset]["all"].mAP
  own, other = as_text(comparisons).split(f"\n\n{SHOP}\n")
  assert f"cuhk03_small was trained on {CUHK03}, tested on {SHOP}." in other
  assert "was trained on" not in own
  assert "82.4" in own
  assert "82.4" not in other
  test_sets = as_json(comparisons)["test_sets"]
  assert [test_set["groups"][0]["trained_on"] for test_set in test_sets] == [CUHK03, CUHK03]


def test_all_test_sets_are_opened_before_one_is_embedded(workdir: Path, make_config: MakeConfig):
  with pytest.raises(ConfigError, match=r"data\.dataset: no data set is called 'cuhk3'"):
    evaluate_run(make_config(data__dataset=f"('{SHOP}', 'cuhk3')"), workdir)
  assert not (workdir / "tested_on").exists()


def test_the_arithmetic_is_the_given_one(workdir: Path, make_config: MakeConfig):
  found = {}
  for dtype in ("float32", "bfloat16"):
    evaluate_run(make_config(dtype=dtype, evaluation__save_embeddings=True), workdir)
    with np.load(workdir / "embeddings.npz") as arrays:
      found[dtype] = arrays["query/branch/global"]
  assert np.all(np.isfinite(found["float32"]))
  assert np.any(found["float32"] != found["bfloat16"])
  np.testing.assert_allclose(found["float32"], found["bfloat16"], rtol=0.1, atol=0.05)


def test_a_config_of_one_of_several_data_sets(make_config: MakeConfig):
  config = make_config(data__dataset=f"['{SHOP}', '{CUHK03}']")
  assert config.data.dataset == config.data.datasets == (SHOP, CUHK03)
  assert config.on(SHOP) == dataclasses.replace(make_config(), data=config.on(SHOP).data)
  assert config.on(SHOP).data.dataset == SHOP
