"""Embedded images: their vectors, where they come from, and what could not be embedded."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from magnifier_jax.evaluation.embedding import l2_normalize
from magnifier_jax.retrieval.images import Failure


@dataclasses.dataclass(frozen=True)
class EmbeddedImages:
  """Embeddings of N images by one network, in the order of the images.

  Attributes:
    whole: [N, D] float32, all branches side by side, L2-normalised as a whole.
    branch_widths: {branch: its columns of `whole`}, in order.
    position: [N] int64, of each row's image among those that were given, from 0.
    path: N paths; '' where an image is not from a file.
    sha256: N digests of the files; '' likewise.
    turned: [N] bool, whether an EXIF orientation was applied.
    failed: images that could not be embedded.
    weights_sha256: of the network.
  """

  whole: np.ndarray
  branch_widths: Mapping[str, int]
  position: np.ndarray
  path: tuple[str, ...]
  sha256: tuple[str, ...]
  turned: np.ndarray
  failed: tuple[Failure, ...]
  weights_sha256: str

  def __len__(self) -> int:
    """Returns the number of embedded images, N."""
    return len(self.whole)

  @property
  def num_given(self) -> int:
    """How many images were given, the failed ones among them."""
    return len(self.whole) + len(self.failed)

  @property
  def branches(self) -> dict[str, np.ndarray]:
    """{branch: [N, D_branch] float32}, each L2-normalised."""
    return by_branch(self.whole, self.branch_widths)


def by_branch(whole: np.ndarray, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
  """Divides whole embeddings [N, D] into {branch: [N, D_branch] float32}, each L2-normalised."""
  ends = np.cumsum(list(widths.values()))
  return {
    name: l2_normalize(whole[:, end - width : end])
    for (name, width), end in zip(widths.items(), ends)
  }


def branch_distances(
  one: np.ndarray, others: np.ndarray, widths: Mapping[str, int]
) -> dict[str, np.ndarray]:
  """Returns {branch: [N] squared Euclidean distances} of one embedding [D] to others [N, D]."""
  ours, theirs = by_branch(one[None], widths), by_branch(others, widths)
  return {name: np.square(theirs[name] - ours[name]).sum(axis=1) for name in widths}


def concatenate(parts: Sequence[EmbeddedImages]) -> EmbeddedImages:
  """Puts the embeddings of consecutive images together; at least one part."""
  first = parts[0]
  return dataclasses.replace(
    first,
    whole=np.concatenate([part.whole for part in parts]),
    position=np.concatenate([part.position for part in parts]),
    path=tuple(path for part in parts for path in part.path),
    sha256=tuple(digest for part in parts for digest in part.sha256),
    turned=np.concatenate([part.turned for part in parts]),
    failed=tuple(failure for part in parts for failure in part.failed),
  )
