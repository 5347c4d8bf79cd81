"""Which checkpoints stay, and what comes back from them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.devices.mesh import data_mesh, replicated
from magnifier_jax.train_state import TrainState, Weights
from magnifier_jax.workdir.checkpoints import (
  CheckpointError,
  Checkpoints,
  abstract_state,
  check_same_run,
  run_record,
)

CONFIG = Config.from_config_dict(get_config("small"))
RECORD = run_record(CONFIG, num_people=3, steps_per_epoch=2)


def make_state(step: int, averaged: bool = False) -> TrainState:
  kernel = jnp.full((2, 3), float(step))
  moments = ({"kernel": kernel * 2}, jnp.zeros((), jnp.int32))
  average = Weights({"kernel": kernel / 4}, {"mean": kernel[0] / 4}) if averaged else None
  return TrainState(jnp.int32(step), {"kernel": kernel}, {"mean": kernel[0]}, moments, average)


def save_all(workdir: Path, mean_ap_by_step: dict[int, float], keep: int = 1) -> Checkpoints:
  checkpoints = Checkpoints(workdir, keep)
  for step, mean_ap in mean_ap_by_step.items():
    checkpoints.save(make_state(step), RECORD)
    checkpoints.record(step, {"mAP": mean_ap, "rank1": 0.5})
  return checkpoints


def kept_steps(workdir: Path) -> set[int]:
  return {int(folder.name) for folder in (workdir / "checkpoints").iterdir()}


def test_the_newest_and_the_best_stay(tmp_path: Path):
  checkpoints = save_all(tmp_path, {2: 0.1, 4: 0.4, 6: 0.3, 8: 0.2})
  assert kept_steps(tmp_path) == {4, 8}
  assert checkpoints.latest_step() == 8
  assert checkpoints.intact_step(best=True) == 4


def test_more_of_the_newest_can_be_kept(tmp_path: Path):
  save_all(tmp_path, {2: 0.9, 4: 0.4, 6: 0.3, 8: 0.2}, keep=2)
  assert kept_steps(tmp_path) == {2, 6, 8}


@pytest.mark.parametrize("averaged", [False, True])
def test_state_comes_back_on_all_devices(tmp_path: Path, averaged: bool):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(make_state(2, averaged), RECORD)
  checkpoints.wait()
  mesh = data_mesh()
  target = abstract_state(jax.eval_shape(lambda: make_state(0, averaged)), replicated(mesh))
  restored = checkpoints.restore(2, target)
  jax.tree.map(np.testing.assert_array_equal, restored, make_state(2, averaged))
  assert (restored.average is not None) == averaged
  assert isinstance(restored, TrainState)
  assert restored.params["kernel"].sharding.is_equivalent_to(replicated(mesh), 2)


def test_the_run_is_recorded_with_it(tmp_path: Path):
  assert save_all(tmp_path, {2: 0.1}).read_run(2) == RECORD


def test_looking_does_not_create_a_workdir(tmp_path: Path):
  assert Checkpoints(tmp_path / "nothing", read_only=True).latest_step() is None
  assert not (tmp_path / "nothing").exists()


def test_reading_is_nothing_to_warn_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
  save_all(tmp_path, {2: 0.1}).close()
  logger = logging.get_absl_logger()
  logger.addHandler(caplog.handler)
  try:
    with caplog.at_level("WARNING", logger="absl"):
      assert Checkpoints(tmp_path, read_only=True).latest_step() == 2
      logging.warning("something else")
  finally:
    logger.removeHandler(caplog.handler)
  assert {record.getMessage() for record in caplog.records} == {"something else"}


def test_what_may_change_does_not_hinder_a_continuation(tmp_path: Path):
  config = get_config("small")
  config.training.num_epochs = 99
  config.evaluation.rerank = True
  config.data.manual_dir = "/elsewhere"
  check_same_run(tmp_path, RECORD, run_record(Config.from_config_dict(config), 3, 2))


def test_the_length_of_a_run_with_a_cosine_may_not_change(tmp_path: Path):
  config = get_config("small")
  config.optimizer.schedule = "cosine"
  shorter = run_record(Config.from_config_dict(config), 3, 2)
  config.training.num_epochs = 99
  with pytest.raises(CheckpointError, match=r"config\.training\.num_epochs: 8 there, 99 now"):
    check_same_run(tmp_path, shorter, run_record(Config.from_config_dict(config), 3, 2))


def test_another_number_of_people_is_another_run(tmp_path: Path):
  with pytest.raises(CheckpointError, match="num_people: 3 there, 4 now"):
    check_same_run(tmp_path, RECORD, run_record(CONFIG, 4, 2))


def weights_target(state: TrainState) -> Weights:
  return abstract_state(Weights(state.params, state.batch_stats), replicated(data_mesh()))


def test_weights_come_back_whatever_the_optimiser_was(tmp_path: Path):
  checkpoints = Checkpoints(tmp_path)
  state = make_state(2)._replace(opt_state={"momentum": jnp.zeros((5,))})
  checkpoints.save(state, RECORD)
  checkpoints.wait()
  params, batch_stats = checkpoints.restore_weights(2, weights_target(make_state(0)))
  jax.tree.map(np.testing.assert_array_equal, params, state.params)
  jax.tree.map(np.testing.assert_array_equal, batch_stats, state.batch_stats)
  assert params["kernel"].sharding.is_equivalent_to(replicated(data_mesh()), 2)


def test_the_average_is_the_network(tmp_path: Path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(make_state(2, averaged=True), RECORD)
  checkpoints.wait()
  weights = checkpoints.restore_weights(2, weights_target(make_state(0)))
  jax.tree.map(np.testing.assert_array_equal, weights, make_state(2, averaged=True).average)


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize(
  ("params", "difference"),
  [
    ({"kernel": np.zeros((3, 3))}, r"params\.kernel: \(2, 3\) there, \(3, 3\) now"),
    ({}, r"params\.kernel: \(2, 3\) there, nothing now"),
    (
      {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)},
      r"params\.bias: nothing there, \(3,\) now",
    ),
  ],
)
def test_weights_of_another_network_are_refused(
  tmp_path: Path, params: dict, difference: str, averaged: bool
):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(make_state(2, averaged), RECORD)
  checkpoints.wait()
  target = weights_target(make_state(0)._replace(params=params))
  with pytest.raises(CheckpointError, match=difference):
    checkpoints.restore_weights(2, target)
