"""What is computed in which dtype by a network whose feature maps are bfloat16."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.devices.mesh import data_mesh
from magnifier_jax.train_state import Batch
from magnifier_jax.train_step import Trainer, create_trainer

from ..default_path import default_path

FLOAT32, BFLOAT16 = jnp.dtype("float32"), jnp.dtype("bfloat16")
BATCH = Batch(
  image=np.zeros((4, 64, 32, 3), np.uint8),
  part_labels=np.zeros((4, 8, 4), np.uint8),
  keep_mask=np.ones((4, 4, 2), np.uint8),
  person_id=np.array([0, 0, 1, 1], np.int32),
)


def _trainer(cell: str) -> Trainer:
  config = get_config("small")
  config.dtype = "bfloat16"
  config.data.image_size_hw = (64, 32)
  config.model.update(backbone="resnet10_narrow", fusion_cell=cell)
  return create_trainer(Config.from_config_dict(config), 3, 1, data_mesh(jax.devices()[:1]))


@functools.cache
def _operations(cell: str) -> tuple[core.JaxprEqn, ...]:
  """Returns all operations of a training step on an accelerator, those of inner functions too."""
  trainer = _trainer(cell)
  with default_path():
    step = trainer.step.trace(trainer.init.eval_shape(0), BATCH)
  return tuple(_walk(step.jaxpr.jaxpr))


def _walk(jaxpr: Any) -> Iterator[core.JaxprEqn]:
  for operation in jaxpr.eqns:
    yield operation
    for value in operation.params.values():
      for inner in value if isinstance(value, tuple | list) else (value,):
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
          yield from _walk(inner)


def _is_map(array: Any) -> bool:
  """Whether an array has an axis of rows and one of columns, as [B, H, W, C]."""
  return array.aval.ndim == 4


@pytest.mark.parametrize("branch", ["global_branch", "adversarial_branch", "fusion_branch"])
def test_all_that_a_branch_puts_out_is_float32(branch: str):
  output = _output()
  assert {array.dtype for array in getattr(output, branch)} == {FLOAT32}
  assert output.segmentation_logits.dtype == FLOAT32


def _output() -> Any:
  trainer = _trainer("lstm")
  state = trainer.init.eval_shape(0)
  run = functools.partial(trainer.network.apply, train=True)
  return jax.eval_shape(run, state.params, state.batch_stats, *BATCH[:3])[0]


def test_convolutions_are_bfloat16_before_the_pooling_and_float32_after_it():
  dtypes = {True: [], False: []}
  for operation in _operations("lstm"):
    if operation.primitive.name == "conv_general_dilated":
      height, width = operation.invars[0].aval.shape[1:3]
      dtypes[height * width > 1] += [array.aval.dtype for array in operation.invars]
  assert len(dtypes[True]) > 100
  assert set(dtypes[True]) == {BFLOAT16}
  assert len(dtypes[False]) == 6  # `reduce` of the adversarial branch, and its two gradients
  assert set(dtypes[False]) == {FLOAT32}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_products_of_vectors_are_float32(cell: str):
  products = [
    operation
    for operation in _operations(cell)
    if operation.primitive.name == "dot_general" and not any(map(_is_map, operation.invars))
  ]
  assert len(products) > 30
  dtypes = {array.aval.dtype for each in products for array in (*each.invars, *each.outvars)}
  assert dtypes == {FLOAT32}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gates_are_float32(cell: str):
  gates = [each for each in _operations(cell) if each.primitive.name in ("logistic", "tanh")]
  assert len(gates) > 20
  assert {each.outvars[0].aval.dtype for each in gates} == {FLOAT32}


def test_nothing_is_summed_in_bfloat16():
  """Eight bits of precision stop a sum at 256 times its terms."""
  sums = [each for each in _operations("lstm") if each.primitive.name == "reduce_sum"]
  narrow = [
    each.invars[0].aval
    for each in sums
    if each.invars[0].aval.dtype == BFLOAT16
    and math.prod(each.invars[0].aval.shape[axis] for axis in each.params["axes"]) > 1
  ]
  assert len(sums) > 100
  assert narrow == []
