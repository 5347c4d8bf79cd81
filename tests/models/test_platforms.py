"""CPU forms equal the default path, which accelerators get without a trace of them."""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.devices.mesh import data_mesh
from magnifier_jax.models.convolution import convolve, convolve_1x1
from magnifier_jax.models.layers import recur
from magnifier_jax.models.network import create_network
from magnifier_jax.models.part_segmentation import upsample
from magnifier_jax.models.parts import masked_max_pool, part_max_pool
from magnifier_jax.models.resnet import max_pool_3x3, relu_of_sum
from magnifier_jax.train_state import Batch
from magnifier_jax.train_step import create_trainer

from ..default_path import default_path
from ..drawn_weights import drawn_weights

LABELS = np.random.default_rng(0).integers(0, 7, (2, 24, 12), np.uint8)  # without part 7


class Case(NamedTuple):
  """An operation that has two forms, and the shapes of its arguments."""

  operation: Callable[..., jax.Array]
  shapes: tuple[tuple[int, ...], ...]


def _strided(operation: Callable, stride: int) -> Callable:
  return functools.partial(operation, stride=stride)


def _pool_parts(x: jax.Array) -> jax.Array:
  return part_max_pool(jnp.abs(x), LABELS[: len(x)])


def _pool_kept(x: jax.Array) -> jax.Array:
  return masked_max_pool(jnp.abs(x), LABELS[: len(x)] > 3)


# Channels of the network. Winograd's algorithm is for images of 384 × 192, the others have 96 × 48.
CASES = {
  "stem": Case(_strided(convolve, 2), ((1, 96, 48, 3), (7, 7, 3, 64))),
  "3x3 of stage 1, by Winograd's algorithm": Case(
    _strided(convolve, 1), ((1, 96, 48, 64), (3, 3, 64, 64))
  ),
  "3x3 of stage 2, by Winograd's algorithm": Case(
    _strided(convolve, 1), ((2, 48, 24, 128), (3, 3, 128, 128))
  ),
  "3x3 of stage 2, strided": Case(_strided(convolve, 2), ((1, 24, 12, 128), (3, 3, 128, 128))),
  "3x3, small": Case(_strided(convolve, 1), ((2, 6, 5, 4), (3, 3, 4, 7))),
  "1x1 of stage 3": Case(_strided(convolve_1x1, 1), ((2, 24, 12, 1024), (1024, 256))),
  "1x1 of stage 2's shortcut": Case(_strided(convolve_1x1, 2), ((1, 24, 12, 256), (256, 512))),
  "max pool": Case(max_pool_3x3, ((1, 48, 24, 64),)),
  "relu of a sum": Case(relu_of_sum, ((2, 24, 12, 64), (2, 24, 12, 64))),
  "upsampling": Case(upsample, ((1, 6, 3, 512), (512, 3, 3, 256))),
  "upsampling, small": Case(upsample, ((2, 5, 3, 4), (4, 3, 3, 7))),
  "part pooling": Case(_pool_parts, ((2, 24, 12, 1024),)),
  "LSTM": Case(functools.partial(recur, cell="lstm"), ((8, 4, 64), (16, 64), (1, 64))),
  "GRU": Case(functools.partial(recur, cell="gru"), ((8, 4, 48), (16, 48), (1, 48))),
  "masked pooling": Case(_pool_kept, ((2, 24, 12, 1024),)),
}


# The same for images of 384 × 192.
FULL_SIZE = {
  "stem": Case(_strided(convolve, 2), ((1, 384, 192, 3), (7, 7, 3, 64))),
  "3x3 of stage 2, strided": Case(_strided(convolve, 2), ((1, 96, 48, 128), (3, 3, 128, 128))),
  "1x1 of stage 2's shortcut": Case(_strided(convolve_1x1, 2), ((1, 96, 48, 256), (256, 512))),
  "max pool": Case(max_pool_3x3, ((1, 192, 96, 64),)),
  "upsampling": Case(upsample, ((1, 24, 12, 512), (512, 3, 3, 256))),
}


def _value_and_gradients(case: Case, dtype: str) -> list[np.ndarray]:
  random = np.random.default_rng(1)
  arrays = [jnp.asarray(random.standard_normal(shape), dtype) for shape in case.shapes]

  @jax.jit
  def run(arrays: list[jax.Array]) -> list[jax.Array]:
    value, pull_back = jax.vjp(case.operation, *arrays)
    return [value, *pull_back(jnp.cos(jnp.arange(value.size, dtype=dtype)).reshape(value.shape))]

  return [np.asarray(array) for array in run(arrays)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
  "case",
  [
    *(pytest.param(case, id=name) for name, case in CASES.items()),
    *(
      pytest.param(case, id=f"{name}, full size", marks=pytest.mark.slow)
      for name, case in FULL_SIZE.items()
    ),
  ],
)
def test_cpu_form_is_the_default_to_rounding(case: Case, dtype: str):
  with jax.enable_x64(dtype == "float64"):
    on_cpu = _value_and_gradients(case, dtype)
    with default_path():
      default = _value_and_gradients(case, dtype)
  for ours, theirs in zip(on_cpu, default, strict=True):
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert error < {"float32": 1e-5, "float64": 1e-13}[dtype]


def test_equal_maxima_share_the_gradient_and_absent_parts_have_none():
  features = jnp.asarray([[[[2.0], [3.0], [1.0]], [[3.0], [7.0], [0.0]]]])  # [1, 2, 3, 1]
  labels = jnp.asarray([[[0, 1, 1], [1, 2, 3]]], jnp.uint8)
  factors = jnp.arange(1.0, 9.0)
  with default_path():
    gradient = jax.grad(lambda x: (part_max_pool(x, labels)[0, :, 0] * factors).sum())(features)
  np.testing.assert_array_equal(gradient[0, :, :, 0], [[1, 1, 0], [1, 3, 4]])


def _config() -> Config:
  config = get_config("small")
  config.model.backbone = "resnet10"
  config.data.image_size_hw = (64, 32)
  return Config.from_config_dict(config)


@pytest.fixture(scope="module")
def programs() -> dict[str, str]:
  """A training step as it is lowered for each platform."""
  trainer = create_trainer(_config(), 6, 2, data_mesh(jax.devices()[:1]))
  batch = Batch(
    image=jax.ShapeDtypeStruct((8, 64, 32, 3), np.uint8),
    part_labels=jax.ShapeDtypeStruct((8, 8, 4), np.uint8),
    keep_mask=jax.ShapeDtypeStruct((8, 4, 2), np.uint8),
    person_id=jax.ShapeDtypeStruct((8,), np.int32),
  )
  traced = trainer.step.trace(trainer.init.eval_shape(0), batch)
  return {
    platform: traced.lower(lowering_platforms=(platform,)).as_text()
    for platform in ("cpu", "cuda", "tpu")
  }


def _count(operation: str, program: str) -> int:
  return len(re.findall(rf"= \"?stablehlo\.{operation}\b", program))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_step_on_accelerators_is_of_library_operations(programs: dict[str, str], platform: str):
  program = programs[platform]
  # A ResNet-10 and its branches have 20 convolutions; the stem's images need no gradient.
  assert _count("convolution", program) == 3 * 20 - 1
  assert _count("dot_general", program) < _count("dot_general", programs["cpu"])
  assert _count("reduce_window", program) == _count("select_and_scatter", program) == 1
  assert _count("while", program) == 0
  # Nothing is left to choose but the number of the one branch that is there.
  number = r" *%\S+ = stablehlo.constant .*\n *stablehlo.return .* : tensor<i32>"
  second_branches = re.findall(r"\}, \{\n( *[^ ^].*\n.*)\n", program)
  assert all(re.fullmatch(number, branch) for branch in second_branches)


def test_network_for_any_number_of_images_is_exported():
  network, init = create_network(_config(), 6)
  params, stats = drawn_weights(init)

  @jax.jit
  def embed(images: jax.Array) -> jax.Array:
    output, _ = network.apply(params, stats, images, train=False)
    return jnp.concatenate(list(output.embeddings().values()), axis=1)

  (batch,) = jax.export.symbolic_shape("B")
  # Large enough for Winograd's algorithm at a usual batch.
  shape = jax.ShapeDtypeStruct((batch, 128, 64, 3), np.uint8)
  exported = jax.export.export(embed, platforms=("cpu", "cuda", "tpu"))(shape)
  assert exported.platforms == ("cpu", "cuda", "tpu")
  images = np.random.default_rng(0).integers(0, 256, (2, 128, 64, 3), np.uint8)
  np.testing.assert_allclose(exported.call(images), embed(images), rtol=1e-3, atol=1e-4)
