"""How batches mix data sets: what each holds, and that a step decides it."""

from collections.abc import Callable

import numpy as np
import pytest

from magnifier_jax.config import ConfigError, DataConfig
from magnifier_jax.data.dataset_mixing import Sampler, make_sampler
from magnifier_jax.data.identity_sampling import IdentitySampler

COUNTS = (12, 5, 3)  # people of each data set
GROUPS = np.repeat(np.arange(3), COUNTS)
PERSON_ID = np.random.default_rng(0).permutation(np.repeat(np.arange(20), 3))
P, K = 3, 2


@pytest.fixture
def sampler(make_config: Callable) -> Callable[..., Sampler]:
  """Makes samplers of the three data sets."""

  def make(mixing: str, seed: int = 0, people: int = P) -> Sampler:
    config: DataConfig = make_config(
      data__mixing=mixing, data__identities_per_batch=people, data__images_per_identity=K
    ).data
    return make_sampler(PERSON_ID, GROUPS, config, seed)

  return make


def groups_of(batch: np.ndarray) -> list[int]:
  """The data set of each person of a batch."""
  people = PERSON_ID[batch].reshape(-1, K)
  assert (people == people[:, :1]).all()
  assert len(set(people[:, 0])) == len(people)
  return GROUPS[people[:, 0]].tolist()


def test_proportional_batches_are_those_of_one_data_set(sampler: Callable):
  one = IdentitySampler(PERSON_ID, P, K, 0)
  mixed = sampler("proportional")
  for step in range(20):
    np.testing.assert_array_equal(mixed.batch(step), one.batch(step))
  # In a pass everybody comes once, whatever the data set; one comes again to fill the last batch.
  seen = np.bincount([group for step in range(7) for group in groups_of(mixed.batch(step))])
  assert seen.sum() == 21
  assert np.all(seen - COUNTS >= 0)


def test_equal_batches_have_as_many_people_of_each(sampler: Callable):
  mixed = sampler("equal")
  times = np.zeros(20, int)
  for step in range(60):
    batch = mixed.batch(step)
    assert groups_of(batch) == [0, 1, 2]
    times[PERSON_ID[batch][::K]] += 1
  for group, count in enumerate(COUNTS):
    assert set(times[group == GROUPS]) == {60 // count}


def test_a_batch_may_be_of_one_data_set(sampler: Callable):
  mixed = sampler("one_dataset")
  batches = [4, 2, 1]  # people / P, rounded up
  orders, firsts = set(), set()
  for cycle in range(8):
    turns = []
    for step in range(7 * cycle, 7 * cycle + 7):
      [group] = set(groups_of(mixed.batch(step)))
      turns.append(group)
    assert np.bincount(turns).tolist() == batches
    orders.add(tuple(turns))
    firsts.add(tuple(mixed.batch(7 * cycle + turns.index(0))))
  assert len(orders) > 4
  assert len(firsts) > 4  # a data set goes on where its last cycle ended
  # Each data set goes through its people as if it were alone.
  of_first = [mixed.batch(step) for step in range(7) if set(groups_of(mixed.batch(step))) == {0}]
  assert set(PERSON_ID[np.concatenate(of_first)]) == set(range(12))


@pytest.mark.parametrize("mixing", ["proportional", "equal", "one_dataset"])
def test_a_step_and_the_seed_decide_a_batch(sampler: Callable, mixing: str):
  forward = [sampler(mixing).batch(step) for step in range(30)]
  resumed = sampler(mixing)
  for step in reversed(range(30)):
    np.testing.assert_array_equal(resumed.batch(step), forward[step])
  other = [sampler(mixing, seed=1).batch(step) for step in range(30)]
  assert any((a != b).any() for a, b in zip(forward, other))


def test_data_sets_draw_numbers_of_their_own(make_config: Callable):
  """Two data sets of the same counts are not shuffled alike."""
  person_id = np.repeat(np.arange(24), 4)
  config = make_config(data__mixing="equal", data__identities_per_batch=4).data
  mixed = make_sampler(person_id, np.repeat([0, 1], 12), config, 0)
  first, second = np.split(np.array([mixed.batch(step) for step in range(6)]), 2, axis=1)
  assert (second - 48 != first).any()


def test_people_that_cannot_be_shared_are_refused(sampler: Callable):
  with pytest.raises(ConfigError, match=r"identities_per_batch: 4 people .* a multiple of 3$"):
    sampler("equal", people=4)
  with pytest.raises(ConfigError, match=r"identities_per_batch: 4 people a batch, but .* has 3"):
    sampler("one_dataset", people=4)
  assert len(sampler("proportional", people=4).batch(0)) == 8


def test_notes_say_which_data_set(sampler: Callable):
  assert [note[:10] for note in sampler("one_dataset").notes()] == ["data set 2"]
