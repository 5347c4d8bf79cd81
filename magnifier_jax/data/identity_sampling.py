"""P identities × K images for every training batch, as a pure function of (seed, batch number).

A pass takes the identities in a shuffled order, P at a time, each with K of its images. The last
batch of a pass is filled up with identities that the pass began with, so no batch has one identity
twice. Over passes an identity goes through its images in a shuffled order likewise.
"""

import functools

import numpy as np

from magnifier_jax.config import ConfigError
from magnifier_jax.data.random_streams import Purpose, generator


class IdentitySampler:
  """Chooses the images of training batches.

  Attributes:
    batches_per_pass: batches in which every identity appears.
  """

  def __init__(
    self,
    person_id: np.ndarray,
    identities_per_batch: int,
    images_per_identity: int,
    seed: int,
    stream: int = 0,
  ):
    """Groups the images by identity.

    Args:
      person_id: (N,) integers 0…people-1, each at least once.
      identities_per_batch: P.
      images_per_identity: K.
      seed: of the run.
      stream: which of several samplers of the run it is; each draws other numbers.

    Raises:
      ConfigError: when there are fewer than P people.
    """
    images_by_person = np.argsort(person_id, kind="stable")
    counts = np.bincount(person_id)
    if identities_per_batch > len(counts):
      raise ConfigError(
        f"config.data.identities_per_batch: {identities_per_batch} people a batch, but the data "
        f"set has {len(counts)} to train on; set it to {len(counts)} or fewer"
      )
    self._images = np.split(images_by_person, np.cumsum(counts)[:-1])
    self._identities_per_batch = identities_per_batch
    self._images_per_identity = images_per_identity
    self._seed = seed
    self._stream = stream
    self.batches_per_pass = _ceil_div(len(counts), identities_per_batch)
    self._identity_order = functools.lru_cache(maxsize=4)(self._draw_identity_order)

  def batch(self, step: int) -> np.ndarray:
    """Returns the images of batch `step`, (P·K,) int64, the K images of an identity together."""
    pass_number, batch_in_pass = divmod(step, self.batches_per_pass)
    start = batch_in_pass * self._identities_per_batch
    slots = range(start, start + self._identities_per_batch)
    order = self._identity_order(pass_number)
    return np.concatenate(
      [
        self._draw_images(order[slot % len(order)], pass_number, extra=slot >= len(order))
        for slot in slots
      ]
    )

  def notes(self) -> list[str]:
    """Returns what a user should know about this sampling, a sentence each."""
    people = len(self._images)
    few = sum(len(images) < self._images_per_identity for images in self._images)
    filled = -people % self._identities_per_batch
    notes = []
    if few:
      notes.append(
        f"{few} of {people} people have fewer than {self._images_per_identity} images: theirs are "
        "repeated within a batch"
      )
    if filled:
      notes.append(
        f"{people} people are not a multiple of {self._identities_per_batch}: the last of every "
        f"{self.batches_per_pass} batches shows {filled} of them for the second time"
      )
    return notes

  def _draw_identity_order(self, pass_number: int) -> np.ndarray:
    random = generator(self._seed, Purpose.IDENTITY_ORDER, pass_number, self._stream)
    return random.permutation(len(self._images))

  def _draw_images(self, identity: int, pass_number: int, extra: bool) -> np.ndarray:
    """Returns the K images of an identity in a pass; `extra` where it fills the last batch."""
    images = self._images[identity]
    draws_per_cycle = _ceil_div(len(images), self._images_per_identity)
    cycle, draw = divmod(pass_number, draws_per_cycle)
    # A second draw within a pass has a stream of its own, or the cycle of the first would skip.
    purpose = Purpose.EXTRA_IMAGES if extra else Purpose.IMAGE_ORDER
    order = generator(self._seed, purpose, identity, cycle, self._stream).permutation(images)
    cyclic = np.resize(order, draws_per_cycle * self._images_per_identity)
    return cyclic[draw * self._images_per_identity :][: self._images_per_identity]


def _ceil_div(numerator: int, denominator: int) -> int:
  return -(-numerator // denominator)
