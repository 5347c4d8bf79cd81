"""How far apart pairs of images lie: of one person (genuine) and of two (impostor)."""

from typing import NamedTuple

import numpy as np

from magnifier_jax.evaluation.match_ranks import BINS_PER_UNIT, NUM_BINS

_FALSE_ACCEPT_RATES = (1e-2, 1e-3, 1e-4)
_BINS = 512


class OperatingPoint(NamedTuple):
  """The loosest distance threshold that a false-accept rate allows, and what it accepts.

  The threshold is searched in steps of 2⁻¹⁴; at it, the rates are exact.

  Attributes:
    false_accept_rate: the rate asked for; the actual one is at most this.
    true_accept_rate: the share of genuine pairs with a distance below the threshold.
    distance_threshold: in the distances' unit, squared Euclidean for embeddings; two images are
      taken for one person if their distance is below.
  """

  false_accept_rate: float
  true_accept_rate: float
  distance_threshold: float


class PairDistances(NamedTuple):
  """How many genuine and impostor pairs lie at which distance.

  Attributes:
    edges: [bins + 1] float64, rising distances, squared Euclidean for embeddings; the last bin
      holds all above too.
    genuine: [bins] int64, pairs of a query and a match.
    impostor: [bins] int64, pairs of different people.
  """

  edges: np.ndarray
  genuine: np.ndarray
  impostor: np.ndarray

  def joined(self, bins: int) -> "PairDistances":
    """Returns the counts with each `bins` neighbouring bins as one; they must divide the bins."""
    return PairDistances(
      edges=self.edges[::bins],
      genuine=self.genuine.reshape(-1, bins).sum(axis=1),
      impostor=self.impostor.reshape(-1, bins).sum(axis=1),
    )


def operating_points(genuine: np.ndarray, impostor: np.ndarray) -> tuple[OperatingPoint, ...]:
  """Returns an operating point for 1 %, 0.1 % and 0.01 %; none without impostor pairs.

  Args:
    genuine: [NUM_BINS] int64, genuine pairs by distance, in bins of 2⁻¹⁴.
    impostor: [NUM_BINS] int64, impostor pairs likewise.
  """
  num_impostors = impostor.sum()
  if num_impostors == 0:
    return ()
  falsely_accepted, truly_accepted = np.cumsum(impostor), np.cumsum(genuine)
  points = []
  for rate in _FALSE_ACCEPT_RATES:
    bins = np.searchsorted(falsely_accepted, rate * num_impostors, side="right")
    accepted = truly_accepted[bins - 1] / truly_accepted[-1] if bins else 0.0
    points.append(
      OperatingPoint(
        false_accept_rate=rate,
        true_accept_rate=float(accepted),
        distance_threshold=float(bins / BINS_PER_UNIT),
      )
    )
  return tuple(points)


def pair_distances(genuine: np.ndarray, impostor: np.ndarray) -> PairDistances:
  """Returns counts in 512 bins.

  Args:
    genuine: [NUM_BINS] int64, genuine pairs by distance, in bins of 2⁻¹⁴.
    impostor: [NUM_BINS] int64, impostor pairs likewise.
  """
  width = (NUM_BINS - 1) // _BINS
  return PairDistances(
    edges=np.arange(_BINS + 1) * (width / BINS_PER_UNIT),
    genuine=_folded(genuine, width),
    impostor=_folded(impostor, width),
  )


def _folded(counts: np.ndarray, width: int) -> np.ndarray:
  folded = counts[:-1].reshape(_BINS, width).sum(axis=1)
  folded[-1] += counts[-1]  # the largest distance, which has a bin of its own
  return folded
