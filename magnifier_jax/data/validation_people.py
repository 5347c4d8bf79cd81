"""Holds training people back, so that nobody has to choose a network on the test people."""

import numpy as np

from magnifier_jax.config import ConfigError
from magnifier_jax.data.random_streams import Purpose, generator
from magnifier_jax.data.records import NO_CAMERA_ID, SplitIndex


def held_back(train: SplitIndex, people: int) -> np.ndarray:
  """Chooses people of the training split, always the same ones whatever the run's seed.

  Args:
    train: the whole training split.
    people: how many to choose.

  Returns:
    (people,) person ids. Each was seen by two cameras or more, so each has a query with a match;
    images of unknown cameras count as of different ones.

  Raises:
    ConfigError: when there are too few such people.
  """
  seen = np.unique(np.stack([train.person_id, _cameras(train.camera_id)]), axis=1)[0]
  everybody, cameras = np.unique(seen, return_counts=True)
  eligible = everybody[cameras > 1]
  if people > len(eligible) or people >= len(everybody):
    raise ConfigError(
      f"config.data.validation_people: {people} people cannot be held back; training has "
      f"{len(everybody)}, of whom {len(eligible)} are seen by two cameras or more"
    )
  return generator(0, Purpose.VALIDATION_PEOPLE).permutation(eligible)[:people]


def _cameras(camera_id: np.ndarray) -> np.ndarray:
  """Returns cameras in which each image of an unknown one has a camera of its own."""
  own = np.arange(-len(camera_id), 0)
  return np.where(camera_id == NO_CAMERA_ID, own, camera_id)


def query_rows(person_id: np.ndarray, camera_id: np.ndarray) -> np.ndarray:
  """Says which images become queries; the others become the gallery.

  A person's first image in each camera that has another one of that person is a query, as in
  CUHK03-NP; a person with one image a camera has one query, from the first camera. So each query
  has a match from another camera.

  Args:
    person_id: (N,) people who were seen by two cameras or more each.
    camera_id: (N,).

  Returns:
    (N,) bool.
  """
  who = np.stack([person_id, _cameras(camera_id)], axis=1)
  groups, first, counts = np.unique(who, axis=0, return_index=True, return_counts=True)
  chosen = counts > 1
  others = np.setdiff1d(groups[:, 0], groups[chosen, 0])
  chosen[np.searchsorted(groups[:, 0], others)] = True
  is_query = np.zeros(len(who), bool)
  is_query[first[chosen]] = True
  return is_query
