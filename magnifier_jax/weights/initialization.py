"""The weights that a fresh run starts from, as `config.init` names them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import traverse_util

from magnifier_jax.config import Config
from magnifier_jax.errors import UserError
from magnifier_jax.files.user_path import user_path
from magnifier_jax.interop.state_dict import (
  entry,
  is_classifier,
  load_state_dict,
  num_people,
)
from magnifier_jax.interop.torchvision_weights import (
  check_whole_network,
  imagenet_weights,
  load_backbone,
)
from magnifier_jax.interop.weights_file import WeightsFile, read_weights
from magnifier_jax.train_state import TrainState, Tree, Weights
from magnifier_jax.weights.workdir_weights import read_workdir
from magnifier_jax.workdir.origin import write_origin


class InitializationError(UserError):
  """`config.init` names what is not there."""


class _Loaded(NamedTuple):
  """Arrays that take the place of drawn ones."""

  params: Tree
  batch_stats: Tree
  origin: dict[str, Any]


def initialize(
  state: TrainState, config: Config, workdir: Path, say: Callable[[str], None]
) -> TrainState:
  """Puts the weights that `config.init` names into a fresh state.

  `initial_weights.json` in the workdir says where they came from.

  Args:
    state: as drawn, of step 0.
    config: of the run; `config.init.checkpoint` goes before `config.init.backbone`.
    workdir: of the run.
    say: is told what was read and what stays as drawn.

  Returns:
    The state with the arrays replaced, on the same devices.

  Raises:
    InitializationError: when a file is not there.
    BackboneError, WeightsFileError, StateDictError, CheckpointError: when the weights cannot be
      had or do not fit.
  """
  if config.init.checkpoint:
    loaded = _whole_network(state, config, say)
  elif config.init.backbone != "none":
    loaded = _backbone(state, config, say)
  else:
    return state
  write_origin(workdir, loaded.origin)
  average = state.average
  if average is not None:
    average = Weights(*(_replace(drawn, read) for drawn, read in zip(average, loaded[:2])))
  return state._replace(
    params=_replace(state.params, loaded.params),
    batch_stats=_replace(state.batch_stats, loaded.batch_stats),
    average=average,
  )


def _backbone(state: TrainState, config: Config, say: Callable[[str], None]) -> _Loaded:
  backbone, source = config.model.backbone, config.init.backbone
  weights = imagenet_weights(backbone, say) if source == "imagenet" else _read_backbone(source)
  params, batch_stats = load_backbone(weights, backbone, state.params, state.batch_stats)
  say(f"backbone: {backbone} from {weights.path} (SHA-256 {weights.sha256[:8]}…)")
  return _Loaded(params, batch_stats, {"path": str(weights.path), "sha256": weights.sha256})


def _read_backbone(source: str) -> WeightsFile:
  path = user_path(source)
  if not path.exists():
    raise InitializationError(
      f"config.init.backbone: no file {source!r}; name one, or 'imagenet', or 'none'"
    )
  return read_weights(path)


def _whole_network(state: TrainState, config: Config, say: Callable[[str], None]) -> _Loaded:
  source = user_path(config.init.checkpoint)
  if not source.exists():
    raise InitializationError(
      f"config.init.checkpoint: no workdir or file {config.init.checkpoint!r}"
    )
  if source.is_dir():
    run = read_workdir(source)
    state_dict, origin = run.state_dict, {"path": str(source), "step": run.step}
  else:
    weights = read_weights(source)
    state_dict, origin = weights.state_dict, {"path": str(source), "sha256": weights.sha256}
  check_whole_network(state_dict, config.model.backbone, source)
  there = num_people(state_dict, str(source))
  here = _num_people(state.params)
  params, batch_stats = state.params, state.batch_stats
  if there == here:
    say(f"weights: {source}, with its classifiers of {there} people")
  else:
    say(f"weights: {source}; its {there} people are not these {here}: classifiers stay as drawn")
    params = _without_classifiers(params)
    state_dict = {name: array for name, array in state_dict.items() if not is_classifier(name)}
  return _Loaded(*load_state_dict(state_dict, params, batch_stats, source=str(source)), origin)


def _num_people(params: Tree) -> int:
  flat = traverse_util.flatten_dict(params)
  return next(leaf.shape[-1] for path, leaf in flat.items() if is_classifier(entry(path).names[0]))


def _without_classifiers(params: Tree) -> Tree:
  flat = traverse_util.flatten_dict(params)
  kept = {path: leaf for path, leaf in flat.items() if not is_classifier(entry(path).names[0])}
  return traverse_util.unflatten_dict(kept)


def _replace(drawn: Tree, loaded: Tree) -> Tree:
  """Returns `drawn` with the arrays that `loaded` has, on the devices of those they replace."""
  flat = traverse_util.flatten_dict(drawn)
  for path, array in traverse_util.flatten_dict(loaded).items():
    leaf = flat[path]
    # Every process has the whole array, and gives its own devices their copies.
    flat[path] = jax.make_array_from_callback(leaf.shape, leaf.sharding, array.__getitem__)
  return traverse_util.unflatten_dict(flat)
