"""P × K sampling: what a batch holds, what a pass covers, and that a step decides its batch."""

import numpy as np
import pytest

from magnifier_jax.config import ConfigError
from magnifier_jax.data.identity_sampling import IdentitySampler

COUNTS = (1, 2, 3, 4, 5, 9, 10, 4, 8, 6, 7)  # images of each person
PERSON_ID = np.random.default_rng(0).permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))
P, K = 4, 4


def _sampler(seed: int = 0, person_id: np.ndarray = PERSON_ID, people: int = P) -> IdentitySampler:
  return IdentitySampler(person_id, people, K, seed)


def _batches(sampler: IdentitySampler, steps: int) -> np.ndarray:
  return np.array([sampler.batch(step) for step in range(steps)])


def test_a_batch_holds_k_images_of_each_of_p_people():
  for batch in _batches(_sampler(), 50):
    people = PERSON_ID[batch].reshape(P, K)
    assert (people == people[:, :1]).all()
    assert len(set(people[:, 0])) == P


def test_every_identity_appears_in_every_pass_before_any_repeats():
  sampler = _sampler()
  assert sampler.batches_per_pass == 3
  people = PERSON_ID[_batches(sampler, 30)][:, ::K].reshape(10, 3 * P)
  for order in people:
    assert set(order[: len(COUNTS)]) == set(range(len(COUNTS)))
  assert len({tuple(order) for order in people}) == 10


def test_every_image_is_used_before_any_of_the_person_repeats():
  sampler = _sampler()
  drawn = _first_draws(sampler, passes=30)  # a multiple of 1, 2 and 3 draws
  for person, count in enumerate(COUNTS):
    draws_per_cycle = -(-count // K)
    images_of_person = np.flatnonzero(person == PERSON_ID)
    for cycle in np.reshape(drawn[person], (-1, draws_per_cycle * K)):
      assert sorted(cycle[:count]) == images_of_person.tolist()


def _first_draws(sampler: IdentitySampler, passes: int) -> list[list[np.ndarray]]:
  """Returns each person's first draw of K images in each pass."""
  drawn = [[] for _ in COUNTS]
  for number in range(passes):
    seen = set()
    for step in range(number * sampler.batches_per_pass, (number + 1) * sampler.batches_per_pass):
      for images in sampler.batch(step).reshape(P, K):
        person = PERSON_ID[images[0]]
        if person not in seen:
          drawn[person].append(images)
        seen.add(person)
  return drawn


def test_images_repeat_within_a_batch_only_where_there_are_too_few():
  for images in _batches(_sampler(), 60).reshape(-1, K):
    count = COUNTS[PERSON_ID[images[0]]]
    repeats = np.unique(images, return_counts=True)[1]
    assert len(repeats) == min(count, K)
    assert repeats.max() - repeats.min() <= 1


def test_notes_say_who_repeats():
  few, filled = _sampler().notes()
  assert few.startswith("3 of 11 people have fewer than 4 images")
  assert "the last of every 3 batches shows 1 of them for the second time" in filled
  assert IdentitySampler(np.repeat(np.arange(8), 4), P, K, 0).notes() == []


def test_a_step_decides_its_batch():
  batches = _batches(_sampler(seed=7), 20)
  for step in (19, 3, 12):
    np.testing.assert_array_equal(_sampler(seed=7).batch(step), batches[step])


def test_seeds_and_steps_differ():
  batches = [tuple(batch) for seed in (0, 1, 2) for batch in _batches(_sampler(seed), 20)]
  assert len(set(batches)) == len(batches)


def test_more_people_a_batch_than_there_are_is_refused():
  with pytest.raises(ConfigError, match=r"^config\.data\.identities_per_batch: 12 .* has 11 "):
    _sampler(people=12)
  assert set(PERSON_ID[_sampler(people=11).batch(0)]) == set(range(11))
