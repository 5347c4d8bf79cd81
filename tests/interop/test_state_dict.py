"""Loading and writing PyTorch's names and layouts."""

import jax
import numpy as np
import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.interop.state_dict import StateDictError, load_state_dict, to_state_dict
from magnifier_jax.models.network import create_network


@pytest.fixture(scope="module")
def trees():
  """Abstract parameters and batch statistics of a small network, and a state_dict that fits."""
  config = get_config("small")
  config.model.global_pooling = "gem"
  _, init = create_network(Config.from_config_dict(config), num_people=3)
  params, batch_stats = jax.eval_shape(lambda: init(jax.random.key(0)))
  random = np.random.default_rng(0)

  def fill(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    return random.standard_normal(leaf.shape).astype(leaf.dtype)

  filled = jax.tree.map(fill, (params, batch_stats))
  return params, batch_stats, filled, to_state_dict(*filled)


def test_round_trip_is_exact(trees):
  params, batch_stats, filled, state_dict = trees
  loaded = load_state_dict(state_dict, params, batch_stats)
  jax.tree.map(np.testing.assert_array_equal, loaded, filled)


def test_layouts_are_pytorchs(trees):
  *_, state_dict = trees
  assert state_dict["base.model.conv1.weight"].shape == (64, 3, 7, 7)
  assert state_dict["base.model.layer4.0.downsample.0.weight"].shape == (512, 256, 1, 1)
  assert state_dict["base.seg_module.deconv.weight"].shape == (512, 256, 3, 3)
  assert state_dict["base.part.part_bns.7.running_var"].shape == (256,)
  assert state_dict["classifier_part.7.weight"].shape == (3, 256)
  assert state_dict["base.gem.p"].shape == (1,)


def test_counters_are_ignored(trees):
  params, batch_stats, _, state_dict = trees
  counter = {"base.model.bn1.num_batches_tracked": np.zeros((), np.int64)}
  load_state_dict(state_dict | counter, params, batch_stats)


def test_every_problem_is_listed_at_once(trees):
  params, batch_stats, _, state_dict = trees
  broken = dict(state_dict)
  del broken["base.feat_bn.weight"]
  del broken["classifier_part.3.bias"]
  broken["base.model.fc.weight"] = np.zeros((1000, 512))
  broken["classifier.weight"] = np.zeros((767, 512))
  broken["base.model.conv1.weight"] = np.zeros((64, 3))
  with pytest.raises(StateDictError) as caught:
    load_state_dict(broken, params, batch_stats)
  message = str(caught.value)
  assert "5 entries" in message
  for expected in (
    "missing: base.feat_bn.weight",
    "missing: classifier_part.3.bias",
    "extra: base.model.fc.weight",
    "classifier.weight has shape (767, 512), the network needs (3, 512)",
    "base.model.conv1.weight has shape (64, 3), the network needs (64, 3, 7, 7)",
  ):
    assert expected in message
