"""Queries of which something is hidden, embedded by a network and ranked."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.data.image_files import decode_part_labels
from magnifier_jax.data.pipeline import evaluation_batches
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.embed_dataset import DatasetEmbedder
from magnifier_jax.evaluation.identities import EvaluationError
from magnifier_jax.evaluation.occlusion_results import OcclusionResults
from magnifier_jax.models.network import Network, create_network
from magnifier_jax.query_occlusion import measurement
from magnifier_jax.query_occlusion.measurement import check_occlusion, measure_occlusion
from magnifier_jax.train_state import Tree
from tests.data.noise_tree import write_tree

QUERIES, HEIGHT, WIDTH = 5, 64, 32


@pytest.fixture(scope="module")
def make_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
  """Makes configs of a tiny network, and of a data set of five queries with part labels."""
  manual_dir = tmp_path_factory.mktemp("noise")
  write_tree(manual_dir, train_images=(2,), test_people=QUERIES)

  def make(**changes: Any) -> Config:
    config = get_config("small")
    config.data.update(
      manual_dir=str(manual_dir),
      data_dir=str(manual_dir / "prepared"),
      image_size_hw=(HEIGHT, WIDTH),
    )
    config.model.update(backbone="resnet10_narrow", adversarial_dim=8, fusion_dim=8)
    config.evaluation.update(batch_size=4, occlude="head", occlude_bottom=(0.0, 0.5))
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return Config.from_config_dict(config)

  return make


@pytest.fixture(scope="module")
def weights(make_config: Callable[..., Config]) -> tuple[Network, Tree, Tree]:
  """A network, drawn at random."""
  network, init = create_network(make_config(), num_people=1)
  return network, *jax.jit(init)(jax.random.key(0))


@pytest.fixture
def measured(make_config: Callable[..., Config], weights: tuple) -> Callable:
  """Measures, and returns the results with the embedded queries by what was hidden."""

  def measure(**changes: Any) -> tuple[OcclusionResults, dict[Any, np.ndarray]]:
    config = make_config(**changes)
    network, *state = weights
    mesh = mesh_lib.data_mesh(jax.devices()[:1])
    dataset = dataset_lib.load(config.data)
    embedder = DatasetEmbedder(config, dataset, network, mesh)
    embedded = []
    embed = embedder.changed_queries

    def keep(*arguments: Any) -> Any:
      embedded.append(embed(*arguments))
      return embedded[-1]

    embedder.changed_queries = keep
    whole = embedder.embeddings(*state)
    results = measure_occlusion(config.evaluation, embedder, *state, whole)
    names = [*results.parts, *results.bottom]
    queries = {name: found.branches["global"] for name, found in zip(names, embedded, strict=True)}
    return results, queries | {"nothing": whole.query.branches["global"]}

  return measure


@pytest.fixture
def queries(make_config: Callable[..., Config]) -> np.ndarray:
  """The queries as the network sees them, [Q, H, W, 3]."""
  config = make_config()
  split = dataset_lib.load(config.data).query
  return np.concatenate([batch.image for batch in evaluation_batches(split, config)])[:QUERIES]


def embedded(weights: tuple, images: np.ndarray) -> np.ndarray:
  """The global branch of images, which are few."""
  network, params, batch_stats = weights
  apply = jax.jit(lambda images: network.apply(params, batch_stats, images, train=False)[0])
  return np.asarray(apply(images).embeddings()["global"])


def test_hidden_pixels_are_those_of_the_labels(
  measured: Callable, make_config: Callable, queries: np.ndarray, weights: tuple
):
  results, found = measured(evaluation__occlude_mask="given")
  split = dataset_lib.load(make_config().data).query
  hidden = queries.copy()
  count = 0
  for row, image in enumerate(hidden):
    labels = decode_part_labels(split.encoded(row).part_labels)
    mean = image.reshape(-1, 3).mean(axis=0).round()
    for y in range(HEIGHT):
      for x in range(WIDTH):
        if labels[y * labels.shape[0] // HEIGHT, x * labels.shape[1] // WIDTH] == 1:
          image[y, x] = mean
          count += 1
  np.testing.assert_allclose(found["head"], embedded(weights, hidden), rtol=1e-4, atol=1e-5)
  assert results.parts["head"].share == pytest.approx(count / hidden[..., 0].size)
  assert 0.1 < results.parts["head"].share < 0.15  # labels of noise, an eighth each


def test_the_bottom_is_hidden_and_nothing_is_nothing(
  measured: Callable, queries: np.ndarray, weights: tuple
):
  results, found = measured(evaluation__occlude_fill="patch")
  np.testing.assert_array_equal(found[0.0], found["nothing"])
  assert results.bottom[0.0].rows == results.plain
  assert (results.bottom[0.0].share, results.bottom[0.5].share) == (0, 0.5)
  offset = next(
    k
    for k in range(1, QUERIES)
    if np.allclose(embedded(weights, half_of_another(queries, k)), found[0.5], rtol=1e-4, atol=1e-5)
  )
  assert offset
  assert list(results.plain) == ["all", "global", "adversarial", "fusion"]
  assert results.plain["all"].keys() == {"mAP", "rank1"}


def half_of_another(queries: np.ndarray, offset: int) -> np.ndarray:
  hidden = queries.copy()
  hidden[:, HEIGHT // 2 :] = np.roll(queries, -offset, axis=0)[:, HEIGHT // 2 :]
  return hidden


def test_predicted_parts_are_the_network_s(measured: Callable, queries: np.ndarray, weights: tuple):
  network, params, batch_stats = weights
  apply = jax.jit(lambda images: network.apply(params, batch_stats, images, train=False)[0])
  parts = np.asarray(apply(queries).segmentation_logits).argmax(axis=-1)
  results, _ = measured(evaluation__occlude="each", evaluation__occlude_bottom=())
  assert len(results.parts) == 7
  assert not results.bottom
  shares = [results.parts[name].share for name in results.parts]
  np.testing.assert_allclose(
    shares, np.bincount(parts.ravel(), minlength=8)[1:] / parts.size, atol=0.01
  )
  assert sum(shares) > 0.5


def test_noise_is_seeded(measured: Callable):
  noise = {"evaluation__occlude_fill": "noise", "evaluation__occlude": "torso"}
  _, first = measured(**noise)
  _, again = measured(**noise)
  _, other = measured(**noise, evaluation__occlude_seed=1)
  np.testing.assert_array_equal(first[0.5], again[0.5])
  assert (first[0.5] != other[0.5]).any()


def test_what_cannot_be_measured_is_one_line(
  measured: Callable, make_config: Callable, monkeypatch: pytest.MonkeyPatch
):
  without_head = {"model__part_segmentation": False, "model__fusion_branch": False}
  with pytest.raises(EvaluationError, match=r"no part segmentation head.*set it to 'given'"):
    check_occlusion(make_config(**without_head))
  check_occlusion(make_config(**without_head, evaluation__occlude_mask="given"))
  check_occlusion(make_config(**without_head, evaluation__occlude="none"))
  monkeypatch.setattr(measurement, "decode_part_labels", lambda _: np.zeros((2, 2), np.uint8))
  with pytest.raises(EvaluationError, match=r"no query of cuhk03_np/labeled has part labels; make"):
    measured(evaluation__occlude_mask="given")


def test_one_query_has_no_other(make_config: Callable, weights: tuple):
  config = make_config(evaluation__occlude_fill="patch")
  dataset = dataset_lib.load(config.data)
  alone = dataset._replace(query=dataset.query.subset("query", np.arange(QUERIES) == 0))
  embedder = DatasetEmbedder(config, alone, weights[0], mesh_lib.data_mesh(jax.devices()[:1]))
  with pytest.raises(
    EvaluationError, match=r"occlude_fill=patch: there is one query, and no other"
  ):
    measure_occlusion(config.evaluation, embedder, *weights[1:], None)
