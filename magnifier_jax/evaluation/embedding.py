"""Embeds a split of a data set: every image once, by branch, whatever the batches and devices."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

BRANCHES = ("global", "adversarial", "fusion")  # their order in the whole embedding


class EmbeddedBatch(NamedTuple):
  """The embeddings of a batch, on every device and process."""

  branches: Mapping[str, jax.Array]  # {branch: [B, D_branch] float32}
  index: jax.Array  # [B] int32, row of the split
  mask: jax.Array  # [B], 0 on padding


class Embeddings(NamedTuple):
  """Embeddings of one split by branch, after the BN necks."""

  branches: Mapping[str, np.ndarray]  # [N, D_branch] float32, not normalised

  def whole(self) -> np.ndarray:
    """Returns all branches side by side, L2-normalised as a whole; [N, D] float32."""
    return l2_normalize(np.concatenate(list(self.branches.values()), axis=1))

  def branch(self, name: str) -> np.ndarray:
    """Returns one branch alone, L2-normalised; [N, D_branch] float32."""
    return l2_normalize(self.branches[name])


def l2_normalize(vectors: np.ndarray) -> np.ndarray:
  """Returns vectors [N, D] divided by their length; a zero vector stays as it is."""
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.maximum(lengths, np.finfo(vectors.dtype).tiny)


def embed(
  embed_batch: Callable[[Any], EmbeddedBatch],
  batches: Iterable[Any],
  num_images: int,
  on_progress: Callable[[int], None] = lambda images_done: None,
) -> Embeddings:
  """Embeds `num_images` images.

  Args:
    embed_batch: global batch → its embeddings; dispatched one batch ahead of the copy to the host.
    batches: global, all of one size; together they hold every index once.
    num_images: N.
    on_progress: called after each batch with the number of images done.

  Raises:
    ValueError: if the batches do not hold every image exactly once.
  """
  branches: dict[str, np.ndarray] = {}
  times_seen = np.zeros(num_images, np.int64)

  def store(batch: EmbeddedBatch) -> None:
    kept = np.asarray(batch.mask) != 0
    index = np.asarray(batch.index)[kept]
    np.add.at(times_seen, index, 1)
    for name, values in batch.branches.items():
      if name not in branches:
        branches[name] = np.zeros((num_images, values.shape[1]), np.float32)
      branches[name][index] = np.asarray(values)[kept]
    on_progress(int((times_seen > 0).sum()))

  pending = None
  for batch in batches:
    dispatched = embed_batch(batch)
    if pending is not None:
      store(pending)
    pending = dispatched
  if pending is not None:
    store(pending)
  if not (times_seen == 1).all():
    raise ValueError(
      f"the batches must hold each of {num_images} images once; {(times_seen == 0).sum()} are "
      f"missing, {(times_seen > 1).sum()} come more than once"
    )
  return Embeddings({name: branches[name] for name in BRANCHES if name in branches})
