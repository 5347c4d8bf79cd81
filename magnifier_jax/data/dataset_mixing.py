"""How the batches of a training on several data sets mix them, as a pure function of (seed, step).

- proportional: all people are one crowd, so a data set is seen as often as it has people;
- equal: each batch has as many people of each data set, so the small ones are repeated;
- one_dataset: each batch is of one data set, whose turns are as many as its people fill batches.
"""

import functools
from typing import Protocol

import numpy as np

from magnifier_jax.config import ConfigError, DataConfig
from magnifier_jax.data.identity_sampling import IdentitySampler
from magnifier_jax.data.random_streams import Purpose, generator


class Sampler(Protocol):
  """Chooses the images of training batches."""

  def batch(self, step: int) -> np.ndarray:
    """Returns the images of batch `step`, (P·K,) int64, the K images of an identity together."""

  def notes(self) -> list[str]:
    """Returns what a user should know about this sampling, a sentence each."""


def make_sampler(
  person_id: np.ndarray, dataset_of_person: np.ndarray, config: DataConfig, seed: int
) -> Sampler:
  """Returns the sampler that a config asks for.

  Args:
    person_id: (N,) integers 0…people-1, each at least once.
    dataset_of_person: (people,) which data set a person is of, 0…data sets-1, ascending.
    config: says how many people and images a batch has, and how it mixes data sets.
    seed: of the run.

  Raises:
    ConfigError: when a data set has too few people for a batch, or when a batch cannot be shared.
  """
  num_datasets = int(dataset_of_person.max(initial=0)) + 1
  if num_datasets == 1 or config.mixing == "proportional":
    return IdentitySampler(person_id, config.identities_per_batch, config.images_per_identity, seed)
  share = config.identities_per_batch
  if config.mixing == "equal":
    if share % num_datasets:
      raise ConfigError(
        f"config.data.identities_per_batch: {share} people cannot be shared equally by "
        f"{num_datasets} data sets (config.data.mixing=equal); make it a multiple of {num_datasets}"
      )
    share //= num_datasets
  groups = [
    _Group(person_id, dataset_of_person, i, share, config.images_per_identity, seed)
    for i in range(num_datasets)
  ]
  return _Equal(groups) if config.mixing == "equal" else _OneDataset(groups, seed)


class _Group:
  """The sampling of one data set of several."""

  def __init__(
    self,
    person_id: np.ndarray,
    dataset_of_person: np.ndarray,
    dataset: int,
    identities_per_batch: int,
    images_per_identity: int,
    seed: int,
  ):
    self._rows = np.flatnonzero(dataset_of_person[person_id] == dataset)
    first = int(np.searchsorted(dataset_of_person, dataset))
    own = person_id[self._rows] - first
    self._sampler = IdentitySampler(
      own, identities_per_batch, images_per_identity, seed, stream=dataset
    )
    self.notes = self._sampler.notes
    self.batches_per_pass = self._sampler.batches_per_pass

  def batch(self, number: int) -> np.ndarray:
    """Returns images among those of all data sets."""
    return self._rows[self._sampler.batch(number)]


class _Equal:
  """As many people of each data set in each batch, those of the first data set first."""

  def __init__(self, groups: list[_Group]):
    self._groups = groups

  def batch(self, step: int) -> np.ndarray:
    """Returns the images of batch `step`; see `Sampler`."""
    return np.concatenate([group.batch(step) for group in self._groups])

  def notes(self) -> list[str]:
    """Returns what a user should know; see `Sampler`."""
    return _all_notes(self._groups)


class _OneDataset:
  """A data set a batch. In a cycle each has as many turns as it has batches, in a random order."""

  def __init__(self, groups: list[_Group], seed: int):
    self._groups = groups
    self._seed = seed
    self._turns = np.repeat(np.arange(len(groups)), [group.batches_per_pass for group in groups])
    self._order = functools.lru_cache(maxsize=4)(self._draw_order)

  def batch(self, step: int) -> np.ndarray:
    """Returns the images of batch `step`; see `Sampler`."""
    cycle, turn = divmod(step, len(self._turns))
    order = self._order(cycle)
    group = self._groups[order[turn]]
    turns_before = np.count_nonzero(order[:turn] == order[turn])
    return group.batch(cycle * group.batches_per_pass + turns_before)

  def notes(self) -> list[str]:
    """Returns what a user should know; see `Sampler`."""
    return _all_notes(self._groups)

  def _draw_order(self, cycle: int) -> np.ndarray:
    return generator(self._seed, Purpose.DATASET_ORDER, cycle).permutation(self._turns)


def _all_notes(groups: list[_Group]) -> list[str]:
  return [f"data set {i + 1}: {note}" for i, group in enumerate(groups) for note in group.notes()]
