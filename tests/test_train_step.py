"""The update: switches that must change it, and those that must not."""

import functools
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.devices.mesh import DeviceError, check_batch_size, data_mesh
from magnifier_jax.train_state import Batch
from magnifier_jax.train_step import StepMetrics, create_trainer, total_loss

NUM_PEOPLE = 6
STEPS_PER_EPOCH = 2


def make_config(**overrides: Any) -> Config:
  config = get_config("small")
  config.data.image_size_hw = (64, 32)
  config.optimizer.warmup_epochs = 0
  config.model.backbone = "resnet10_narrow"
  config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
  return Config.from_config_dict(config)


def make_batch(seed: int = 0, size: int = 8) -> Batch:
  random = np.random.default_rng(seed)
  return Batch(
    image=random.integers(0, 256, (size, 64, 32, 3), np.uint8),
    part_labels=random.integers(0, 8, (size, 8, 4), np.uint8),
    keep_mask=random.integers(0, 2, (size, 4, 2), np.uint8),
    person_id=np.repeat(np.arange(size // 2), 2).astype(np.int32),
  )


class Step(NamedTuple):
  """One update: parameters before and after it, what it reported, and the compiled program."""

  before: Any
  after: Any
  metrics: StepMetrics
  program: str


@functools.cache
def run_step(dtype: str) -> Step:
  trainer = create_trainer(
    make_config(dtype=dtype), NUM_PEOPLE, STEPS_PER_EPOCH, data_mesh(jax.devices()[:1])
  )
  state = trainer.init(0)
  before = jax.device_get(state.params)  # the step donates its state
  step = trainer.step.lower(state, make_batch()).compile()
  state, metrics = step(state, make_batch())
  return Step(*jax.device_get((before, state.params, metrics)), step.as_text())


def test_bfloat16_step_is_near_the_float32_one():
  narrow, wide = run_step("bfloat16"), run_step("float32")
  assert {leaf.dtype for leaf in jax.tree.leaves(narrow.after)} == {np.dtype("float32")}
  assert np.isfinite(narrow.metrics.grad_norm)
  narrow_total, wide_total = (step.metrics.losses.total for step in (narrow, wide))
  np.testing.assert_allclose(narrow_total, wide_total, rtol=0.02)
  assert narrow_total != wide_total


def test_an_infinite_gradient_norm_leaves_parameters_finite():
  """Each gradient is a number; the sum of their squares is too large for one."""
  trainer = create_trainer(make_config(), NUM_PEOPLE, STEPS_PER_EPOCH, data_mesh(jax.devices()[:1]))
  state = trainer.init(0)
  classifier = state.params["global_branch"]["classifier"]
  classifier["kernel"] = classifier["kernel"] * 1e25
  state, metrics = trainer.step(state, make_batch())
  assert np.isposinf(metrics.grad_norm)
  assert np.isfinite(metrics.losses.total)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_one_program_draws_the_weights_of_every_seed():
  trainer = create_trainer(make_config(), NUM_PEOPLE, STEPS_PER_EPOCH, data_mesh(jax.devices()[:1]))
  assert trainer.init.lower(0).as_text() == trainer.init.lower(1).as_text()


def test_parameters_are_updated_where_they_lie():
  step = run_step("float32")
  copies = re.findall(r"= f32\[([\d,]*)\]\S* copy\([^)]*state_params", step.program)
  copied = sum(math.prod(int(size) for size in shape.split(",") if size) for shape in copies)
  assert copied < sum(leaf.size for leaf in jax.tree.leaves(step.before)) / 1000


def test_frozen_biases_stay_and_all_else_moves():
  step = run_step("float32")
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), step.before, step.after)
  still = {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, has_moved in jax.tree_util.tree_leaves_with_path(moved)
    if not has_moved
  }
  assert still == {
    "global_branch/bnneck/bias",
    "adversarial_branch/bnneck/bias",
    "fusion_branch/bnneck/bias",
    "fusion_branch/part_bnneck/bias",
  }


@pytest.fixture(scope="module")
def output_and_batch():
  """What a small network puts out on one batch."""
  trainer = create_trainer(make_config(), NUM_PEOPLE, STEPS_PER_EPOCH, data_mesh(jax.devices()[:1]))
  network, state, batch = trainer.network, trainer.init(0), make_batch()

  @jax.jit
  def run(batch: Batch):
    return network.apply(
      state.params, state.batch_stats, batch.image, batch.part_labels, batch.keep_mask, train=True
    )[0]

  return run(batch), batch


def test_total_is_the_weighted_sum_of_its_terms(output_and_batch):
  output, batch = output_and_batch
  terms = jax.device_get(total_loss(output, batch, make_config().loss, True))
  expected = (
    terms.global_id
    + terms.global_triplet
    + 2 * terms.segmentation
    + terms.adversarial_beta * terms.adversarial_id
    + terms.fusion_id
    + terms.fusion_triplet
    + 0.0125 * (terms.part_beta * terms.part_id).sum()
    + 0.01 * terms.diversity
  )
  np.testing.assert_allclose(terms.total, expected, rtol=1e-6)


def test_diversity_counts_only_once_it_has_started(output_and_batch):
  output, batch = output_and_batch
  config = make_config().loss
  on, off = (total_loss(output, batch, config, started) for started in (True, False))
  np.testing.assert_allclose(on.total - off.total, 0.01 * on.diversity, rtol=1e-2)
  assert off.diversity > 0  # reported all the same


def test_adversarial_triplet_is_added_by_its_switch(output_and_batch):
  output, batch = output_and_batch
  without = total_loss(output, batch, make_config().loss, True)
  with_it = total_loss(output, batch, make_config(loss__adversarial_triplet=True).loss, True)
  assert without.adversarial_triplet is None
  expected = with_it.adversarial_beta * with_it.adversarial_triplet
  np.testing.assert_allclose(with_it.total - without.total, expected, rtol=1e-3)


def test_a_branch_that_is_off_has_no_terms(output_and_batch):
  output, batch = output_and_batch
  terms = total_loss(output._replace(fusion_branch=None), batch, make_config().loss, True)
  assert terms.fusion_id is None
  assert terms.part_id is None
  assert terms.diversity is None


def bytes_kept_for_the_gradient(rematerialize: bool) -> int:
  """What the forward pass of an update hands over to the backward one."""
  config = make_config(model__backbone="resnet10", model__rematerialize=rematerialize)
  trainer = create_trainer(config, NUM_PEOPLE, STEPS_PER_EPOCH, data_mesh(jax.devices()[:1]))
  state = trainer.init.eval_shape(0)
  batch = jax.tree.map(jnp.asarray, make_batch())

  def backward(params: Any):
    def total(params: Any) -> jax.Array:
      output, _ = trainer.network.apply(
        params, stats, batch.image, batch.part_labels, batch.keep_mask, train=True
      )
      return total_loss(output, batch, config.loss, True).total

    stats = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state.batch_stats)
    return jax.vjp(total, params)[1]

  kept = jax.tree.leaves(jax.eval_shape(backward, state.params))
  parameters = jax.tree.leaves(state.params)
  return sum(leaf.size * leaf.dtype.itemsize for leaf in kept) - sum(
    leaf.size * leaf.dtype.itemsize for leaf in parameters
  )


def test_rematerialization_keeps_less_for_the_gradient():
  assert bytes_kept_for_the_gradient(True) < 0.7 * bytes_kept_for_the_gradient(False)


def test_batch_that_the_devices_do_not_divide_is_refused():
  with pytest.raises(DeviceError, match=r"config.data: a batch of 12 .* 8 devices; .* of 8"):
    check_batch_size(12, data_mesh(), "config.data")
