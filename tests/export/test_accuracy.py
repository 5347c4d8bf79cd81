"""A data set that is embedded by the exported file has the accuracy of the network itself."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.data.dataset import ReidSplit
from magnifier_jax.data.pipeline import evaluation_batches
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.embed_dataset import identities
from magnifier_jax.evaluate import evaluate_run
from magnifier_jax.evaluation.ranking import evaluate_ranking
from magnifier_jax.export.opened import open_exported
from magnifier_jax.tools.export import main
from tests.compiled_once import no_report
from tests.data.noise_tree import write_tree

from .random_network import narrow_config, random_network, write_workdir


@pytest.mark.slow
def test_the_accuracy_is_that_of_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  one_device = mesh_lib.data_mesh(jax.devices()[:1])
  monkeypatch.setattr(mesh_lib, "data_mesh", lambda devices=None: one_device)
  images = tmp_path / "images"
  write_tree(images, test_people=20)
  config = narrow_config(
    data__manual_dir=str(images), data__data_dir=str(images / "prepared"), evaluation__batch_size=8
  )
  workdir = write_workdir(tmp_path / "run", random_network(config))
  with no_report():
    evaluate_run(config, workdir)
  main([f"--network={workdir}", f"--output={tmp_path / 'out'}"])
  network = open_exported(tmp_path / "out" / "model.onnx")
  assert network.description["parity"]["images"] == "10 queries of cuhk03_np/labeled"

  def embed(split: ReidSplit) -> np.ndarray:
    rows = []
    for batch in evaluation_batches(split, config):
      embedded = network.embed_batch(np.asarray(batch.image))
      rows.append(np.concatenate(list(embedded.values()), axis=1)[np.asarray(batch.mask) != 0])
    return np.concatenate(rows)

  dataset = dataset_lib.load(config.data)
  sides = dataset.query, dataset.gallery
  found = evaluate_ranking(*map(embed, sides), *map(identities, sides)).summary()
  expected = json.loads((workdir / "metrics.json").read_text())["all"]
  assert network.description["metrics"]["all"] == expected
  assert 0.01 < expected["mAP"] < 0.99
  for metric in ("mAP", "rank1", "mINP"):
    assert found[metric] == pytest.approx(expected[metric], abs=1e-3), metric
