"""What every gallery says of the network whose vectors it holds, and which vectors fit it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from magnifier_jax.evaluation.thresholds import Thresholds
from magnifier_jax.retrieval.embedded import EmbeddedImages
from magnifier_jax.retrieval.embedder import Embedder, thresholds_of
from magnifier_jax.retrieval.gallery_files import GalleryError
from magnifier_jax.retrieval.network import EmbeddingNetwork, name_of

_NORM_TOLERANCE = 1e-3


def model_of(network: Embedder | EmbeddingNetwork, source: str) -> dict[str, Any]:
  """Returns what a gallery of a network's vectors stores about it, in JSON's types.

  Args:
    network: whose vectors the gallery is to hold.
    source: path of that network; '' where it is not known.
  """
  network = network.network if isinstance(network, Embedder) else network
  return {
    "network": name_of(network),
    "network_source": source,
    "weights_sha256": network.weights_sha256,
    "image_size_hw": list(network.image_size_hw),
    "branches": dict(network.branches),
    "thresholds": network.thresholds,
  }


class GalleryModel:
  """The base of galleries: vectors of one network.

  Args:
    model: what `model_of` returned.
    name: of the gallery, for messages.
    where: the model is stored, for messages.

  Raises:
    GalleryError: when the model is damaged.

  Attributes:
    name: of the gallery.
    branches: {branch: width}, of the vectors.
    weights_sha256: of the network that made them.
    network: description of that network.
    network_source: path that it was opened from; '' where it is not known.
  """

  def __init__(self, model: Mapping[str, Any], name: str, where: str):
    self.name = name
    try:
      self.branches = {str(name): int(width) for name, width in model["branches"].items()}
      self.weights_sha256 = str(model["weights_sha256"])
      self.network = str(model["network"])
      self.network_source = str(model["network_source"])
      self._thresholds = model["thresholds"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise GalleryError(f"{where}: damaged; embed the images anew") from error

  @property
  def width(self) -> int:
    """D, of the vectors."""
    return sum(self.branches.values())

  @property
  def thresholds(self) -> Thresholds:
    """The thresholds of its network.

    Raises:
      ThresholdError: when it has none.
    """
    return self.thresholds_on(None)

  def thresholds_on(self, data_set: str | None) -> Thresholds:
    """Returns the thresholds that were calibrated on a data set; None for the default.

    Raises:
      ThresholdError: when there are none.
    """
    return thresholds_of(self._thresholds, self.network, data_set)

  def check_network(self, weights_sha256: str, branches: Mapping[str, int], whose: str) -> None:
    """Checks that vectors are of the gallery's network.

    Args:
      weights_sha256: of the network that made them.
      branches: {branch: width}, of the vectors.
      whose: for the message.

    Raises:
      GalleryError: when they are of another network, or of other branches of the same: distances
        would mean nothing.
    """
    if weights_sha256 != self.weights_sha256:
      raise GalleryError(
        f"{self.name}: its vectors are of another network ({self.network}, weights "
        f"{self.weights_sha256[:12]}…) than {whose} (weights {weights_sha256[:12]}…); embed both "
        "with the same one"
      )
    if list(branches.items()) != list(self.branches.items()):
      raise GalleryError(
        f"{self.name}: its vectors are of the branches {', '.join(self.branches)}, {whose} of "
        f"{', '.join(branches)}; embed both with the same"
      )

  def check_added(self, embedded: EmbeddedImages) -> None:
    """Checks images that are to be added.

    Raises:
      GalleryError: when their vectors are of another network or damaged.
    """
    self.check_network(embedded.weights_sha256, embedded.branch_widths, "the images to add")
    check_vectors(embedded.whole, self.width)

  def query_vectors(self, query: EmbeddedImages | np.ndarray, k: int) -> np.ndarray:
    """Returns the vectors of a query, [Q, D] float32.

    Raises:
      GalleryError: when they are of another network or damaged, or `k` is not positive.
    """
    if isinstance(query, EmbeddedImages):
      self.check_network(query.weights_sha256, query.branch_widths, "the query")
      query = query.whole
    vectors = np.asarray(query, np.float32)
    check_vectors(vectors, self.width)
    if k < 1:
      raise GalleryError(f"k: must be at least 1, got {k}")
    return vectors

  def nothing_to_search(self, rows: int) -> GalleryError:
    """Returns the error of a search in no rows; `rows` are there without filters."""
    why = f"the filters leave none of its {rows} rows" if rows else "it is empty"
    return GalleryError(f"{self.name}: nothing to search, {why}")


def check_vectors(vectors: np.ndarray, width: int) -> None:
  """Checks vectors.

  Args:
    vectors: [N, D].
    width: D.

  Raises:
    GalleryError: when they are not finite or not L2-normalised, or of another width.
  """
  if vectors.ndim != 2 or vectors.shape[1] != width:
    raise GalleryError(f"vectors: [N, {width}] is wanted, got shape {vectors.shape}")
  lengths = np.linalg.norm(vectors, axis=1)
  wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _NORM_TOLERANCE))  # NaN among them
  if len(wrong):
    raise GalleryError(
      f"vectors: rows must be finite and L2-normalised, but row {wrong[0]} has norm "
      f"{lengths[wrong[0]]:.4g}"
    )
