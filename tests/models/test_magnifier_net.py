"""Size, switches and dtypes of the whole network."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs.cuhk03 import get_config
from magnifier_jax.config import Config, ModelConfig
from magnifier_jax.devices.mesh import data_mesh, options_to_run_once
from magnifier_jax.models.magnifier_net import MagnifierNet, MagnifierNetOutput
from magnifier_jax.models.network import create_network
from magnifier_jax.models.resnet import ResNet
from magnifier_jax.train_state import Tree

from ..drawn_weights import drawn_weights

REFERENCE = Config.from_config_dict(get_config()).model
SMALL = Config.from_config_dict(get_config("small")).model
NUM_PEOPLE = 5

# torchvision's, less their 1,000-class classifiers.
BACKBONE_PARAMETERS = {
  "resnet18": 11_689_512 - 513_000,
  "resnet34": 21_797_672 - 513_000,
  "resnet50": 25_557_032 - 2_049_000,
  "resnet101": 44_549_160 - 2_049_000,
}


def _num_parameters(build) -> int:
  params = nnx.state(nnx.eval_shape(build), nnx.Param)
  return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("name", BACKBONE_PARAMETERS)
def test_backbone_has_torchvisions_parameters(name: str):
  def build() -> ResNet:
    rngs = nnx.Rngs(params=0)
    return ResNet(name, last_stride=1, stem_relu=True, dtype=jnp.float32, rngs=rngs)

  assert _num_parameters(build) == BACKBONE_PARAMETERS[name]


def test_reference_network_has_the_references_parameters():
  """49,366,845 = the sum over `tests/reference/state_dict_shapes.json` without its buffers."""
  count = _num_parameters(lambda: MagnifierNet(REFERENCE, 767, rngs=nnx.Rngs(params=0)))
  assert count == 49_366_845


@pytest.mark.parametrize(
  ("switches", "branches"),
  [
    ({}, ["global", "adversarial", "fusion"]),
    ({"fusion_branch": False}, ["global", "adversarial"]),
    ({"adversarial_branch": False, "fusion_branch": False}, ["global"]),
    (
      {"adversarial_branch": False, "fusion_branch": False, "part_segmentation": False},
      ["global"],
    ),
    ({"global_branch": False}, ["adversarial", "fusion"]),
    ({"fusion_cell": "gru", "stem_relu": False}, ["global", "adversarial", "fusion"]),
  ],
)
def test_branches_can_be_switched_off(switches: dict, branches: list[str]):
  config = dataclasses.replace(SMALL, **switches)
  output = _output_shapes(config, train=False)
  assert list(output.embeddings()) == branches
  assert (output.segmentation_logits is not None) == config.part_segmentation


def _output_shapes(config: ModelConfig, train: bool):
  def run(images: jax.Array):
    model = MagnifierNet(config, NUM_PEOPLE, rngs=nnx.Rngs(params=0))
    labels, keep_mask = np.zeros((2, 16, 8), np.uint8), np.ones((2, 8, 4), np.uint8)
    return model(images, labels if train else None, keep_mask if train else None, train=train)

  return jax.eval_shape(run, jax.ShapeDtypeStruct((2, 128, 64, 3), jnp.float32))


@pytest.mark.parametrize("last_stride", [1, 2])
def test_shapes(last_stride: int):
  config = dataclasses.replace(SMALL, last_stride=last_stride)
  output = _output_shapes(config, train=True)
  assert output.global_branch.features.shape == (2, 512)
  assert output.adversarial_branch.embedding.shape == (2, 256)
  assert output.fusion_branch.part_features.shape == (2, 8, 256)
  assert output.fusion_branch.part_logits.shape == (2, 8, NUM_PEOPLE)
  assert output.segmentation_logits.shape == (2, 16 // last_stride, 8 // last_stride, 8)


def test_bfloat16_keeps_parameters_and_statistics_in_float32():
  model = nnx.eval_shape(
    lambda: MagnifierNet(SMALL, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(params=0))
  )
  assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}


def test_initial_classifiers_are_small_and_convolutions_are_pytorchs():
  @jax.jit
  def draw() -> tuple[jax.Array, jax.Array]:
    # The other weights are not computed: nobody asks for them.
    model = MagnifierNet(SMALL, 400, rngs=nnx.Rngs(params=0))
    classifier, conv = model.global_branch.classifier, model.backbone.stage4.block0.conv1
    return classifier.kernel[...], conv.kernel[...]

  classifier, kernel = (np.asarray(array) for array in draw())
  np.testing.assert_allclose(classifier.std(), 1e-3, rtol=0.02)
  bound = (256 * 9) ** -0.5
  assert np.abs(kernel).max() <= bound
  np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.01)


@pytest.mark.parametrize("last_stride", [1, 2])
def test_evaluation_pools_by_the_parts_that_it_predicts(last_stride: int):
  values = get_config("small")
  values.model.update(backbone="resnet10_narrow", last_stride=last_stride)
  network, init = create_network(Config.from_config_dict(values), NUM_PEOPLE)
  params, stats = drawn_weights(init)
  images = np.random.default_rng(0).standard_normal((2, 128, 64, 3)).astype(np.float32)

  @functools.partial(jax.jit, compiler_options=options_to_run_once(data_mesh(jax.devices()[:1])))
  def run(params: Tree, stats: Tree) -> tuple[jax.Array, MagnifierNetOutput, MagnifierNetOutput]:
    model = network.module(params, stats)
    predicted = model(images, train=False)
    labels = predicted.segmentation_logits.argmax(axis=-1)
    return labels, predicted, model(images, labels, train=False)

  labels, predicted, given = run(params, stats)
  assert len(np.unique(labels)) > 1
  np.testing.assert_allclose(
    predicted.fusion_branch.part_features, given.fusion_branch.part_features, rtol=1e-5, atol=1e-6
  )
