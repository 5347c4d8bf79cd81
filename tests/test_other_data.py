"""A network that is measured on data that it was not trained on, which may have no cameras."""

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
from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.data import inspection
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.evaluate import evaluate_run
from magnifier_jax.evaluation.identities import EvaluationError
from magnifier_jax.interop.state_dict import to_state_dict
from magnifier_jax.interop.weights_file import WeightsFile
from magnifier_jax.models.network import create_network
from magnifier_jax.weights.workdir_weights import write_workdir
from tests.data.noise_tree import write_images, write_tree

MakeConfig = Callable[..., Config]
CUHK03, SHOP, STREET = "cuhk03_np/labeled", "image_list/shop", "image_list/street"
# A table without cameras. Person 8 has one image, which is query and gallery.
STREET_TABLE = """image,person,split
t1.png,1,train
t2.png,2,train
a.png,7,query
a.png,7,gallery
b.png,7,gallery
c.png,8,query
c.png,8,gallery
d.png,9,gallery
e.png,9,gallery
"""


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
  write_images(manual_dir / "street", [f"{name}.png" for name in ("t1", "t2", *"abcde")])
  (manual_dir / "street" / "images.csv").write_text(STREET_TABLE)

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


def test_data_without_cameras_needs_a_rule_that_needs_none(workdir: Path, make_config: MakeConfig):
  message = "camera_rule: the cameras of 7 of 7 test images are unknown; set it to 'ignore'"
  with pytest.raises(EvaluationError, match=message):
    evaluate_run(make_config(data__dataset=STREET), workdir)
  assert not (workdir / "tested_on").exists()


@pytest.mark.parametrize("rule", ["ignore", "single_shot"])
def test_the_rule_is_named_wherever_numbers_are(
  workdir: Path, make_config: MakeConfig, capsys: pytest.CaptureFixture, rule: str
):
  config = make_config(
    data__dataset=STREET, evaluation__camera_rule=rule, evaluation__single_shot_draws=3
  )
  [results] = evaluate_run(config, workdir).values()
  # Of 7 two images are one, so one image is left to match; 8 has but one, which is left out.
  skipped = {"ignore": 1, "single_shot": 0}[rule]
  assert (results["all"].num_queries, results["all"].num_skipped_queries) == (1, skipped)
  folder = workdir / "tested_on" / "image_list_street"
  assert json.loads((folder / "metrics.json").read_text())["camera_rule"] == rule
  [comparison] = compare([workdir])
  assert comparison.dataset == f"{STREET}, camera_rule={rule}"
  report, compared = (folder / "report.html").read_text(), as_text([comparison])
  for text in (capsys.readouterr().out, report, compared):
    assert f"(camera_rule={rule})." in text
    assert ("mean of 3 draws" in text) == (rule == "single_shot")
  assert ("camera unknown" in report) == (rule == "ignore")  # below the pictures
  assert "camera -1" not in report


def test_the_usual_rule_is_named_too(
  workdir: Path, make_config: MakeConfig, capsys: pytest.CaptureFixture
):
  evaluate_run(make_config(), workdir)
  assert "(camera_rule=cross_camera)." in capsys.readouterr().out
  assert "(camera_rule=cross_camera)." in (workdir / "report.html").read_text()


def test_saved_embeddings_are_ranked_by_each_rule(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  """They have the images' numbers, so that nothing but the file is needed."""
  ignoring = {"evaluation__camera_rule": "ignore"}
  config = make_config(data__dataset=STREET, evaluation__save_embeddings=True, **ignoring)
  [first] = evaluate_run(config, workdir).values()
  file = workdir / "tested_on" / "image_list_street" / "embeddings.npz"
  given = {"evaluation__embeddings": str(file), "data__manual_dir": "/nowhere"}
  [again] = evaluate_run(make_config(**given, **ignoring), tmp_path / "a").values()
  assert again["all"].summary() == first["all"].summary()
  with pytest.raises(EvaluationError, match="the cameras of 7 of 7 test images are unknown"):
    evaluate_run(make_config(**given), tmp_path / "b")
  evaluate_run(make_config(**given, evaluation__camera_rule="single_shot"), tmp_path / "c")
  [metrics] = (tmp_path / "c").rglob("metrics.json")
  assert json.loads(metrics.read_text())["camera_rule"] == "single_shot"


def test_people_without_cameras_are_held_back_and_checked(make_config: MakeConfig, tmp_path: Path):
  config = make_config(data__dataset=STREET)
  builder = dataset_lib.find_builder(config.data)
  manual_dir = Path(config.data.manual_dir)

  def stopping(rule: str) -> list[str]:
    found = inspection.inspect(builder, manual_dir, config.data, 1, camera_rule=rule).findings
    kinds = (inspection.Fault.NOTHING_MATCHES, inspection.Fault.NO_MATCH)
    return [finding.message.rpartition("/")[2] for finding in found if finding.fault in kinds]

  [unknown] = stopping("cross_camera")
  assert unknown.startswith("a.png: its camera is unknown, and those of 6 more; set config.eval")
  for rule in ("ignore", "single_shot"):
    assert stopping(rule) == [
      "c.png: the gallery has no image of person 8 but itself; the query is left out of the results"
    ]


def test_occluded_queries_are_in_every_result(
  workdir: Path, make_config: MakeConfig, capsys: pytest.CaptureFixture
):
  config = make_config(
    evaluation__occlude="('head', 'upper arm')", evaluation__occlude_fill="noise"
  )
  evaluate_run(config, workdir)
  metrics = json.loads((workdir / "metrics.json").read_text())["occlusion"]
  assert (metrics["mask"], metrics["fill"], metrics["seed"]) == ("predicted", "noise", 0)
  assert list(metrics["parts"]) == ["head", "upper arm"]
  assert list(metrics["bottom"]) == ["0.1", "0.2", "0.3", "0.4", "0.5"]
  assert list(metrics["parts"]["head"]) == [
    "hidden_share",
    "all",
    "global",
    "adversarial",
    "fusion",
  ]
  assert 0 <= metrics["bottom"]["0.5"]["fusion"]["mAP"] <= 1
  said, report = capsys.readouterr().out, (workdir / "report.html").read_text()
  for name in ("nothing", "head", "upper arm", "bottom 10%", "bottom 50%"):
    assert f"\n{name} " in said
    assert f'<th scope="row">{name}</th>' in report
  for text in (said, report):
    assert "in its place is noise (seed 0). The gallery is whole." in text
  assert "mAP by hidden part" in report
  assert "hidden from the bottom</figcaption>" in report
  [comparison] = compare([workdir])
  assert comparison.rows == ["global", "adversarial", "fusion", "all"]
