"""Random clustered embeddings with the sizes, people and cameras of published data sets."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

from magnifier_jax.evaluation.identities import Identities

_WIDTH = 512
_NOISE = 2.0  # against 1 of a person's centre: neither easy nor hopeless
_CHUNK_ROWS = 2**14


class Workload(NamedTuple):
  """What an evaluation takes."""

  query_embeddings: np.ndarray
  gallery_embeddings: np.ndarray
  query: Identities
  gallery: Identities


def market1501(protocol: Path | None) -> Workload:
  """Market-1501 without junk: 3,368 queries, 15,913 gallery images.

  Args:
    protocol: folder with the data set's queryID, queryCam, testID and testCam.mat; None to draw
      people and cameras instead.
  """
  rng = np.random.default_rng(0)
  if protocol is None:
    # 750 people and 2,798 images of distractors.
    return _embed(rng, _draw(rng, 3_368, 750, 6), _draw(rng, 15_913, 750, 6, 2_798))
  query = Identities(
    _read(protocol / "queryID.mat", "queryID"), _read(protocol / "queryCam.mat", "queryCAM")
  )
  gallery = Identities(
    _read(protocol / "testID.mat", "testID"), _read(protocol / "testCam.mat", "testCAM")
  )
  no_junk = gallery.person_id >= 0
  return _embed(rng, query, Identities(*(ids[no_junk] for ids in gallery)))


def million() -> Workload:
  """1,000 queries, and a million gallery images that are mostly distractors."""
  rng = np.random.default_rng(1)
  return _embed(rng, _draw(rng, 1_000, 750, 6), _draw(rng, 1_000_000, 750, 6, 985_000))


def two_thousand() -> Workload:
  """400 queries and 1,600 gallery images of 100 people."""
  rng = np.random.default_rng(2)
  return _embed(rng, _draw(rng, 400, 100, 3), _draw(rng, 1_600, 100, 3))


def cuhk03() -> Workload:
  """The size of CUHK03-NP labeled: 1,400 queries and 5,328 gallery images of 700 people."""
  rng = np.random.default_rng(3)
  return _embed(rng, _draw(rng, 1_400, 700, 2), _draw(rng, 5_328, 700, 2))


def msmt17() -> Workload:
  """The size of MSMT17: 11,659 queries and 82,161 gallery images of 3,060 people."""
  rng = np.random.default_rng(4)
  return _embed(rng, _draw(rng, 11_659, 3_060, 15), _draw(rng, 82_161, 3_060, 15))


def _read(path: Path, name: str) -> np.ndarray:
  return scipy.io.loadmat(path)[name].ravel().astype(np.int32)


def _draw(
  rng: np.random.Generator,
  num_images: int,
  num_people: int,
  num_cameras: int,
  num_distractors: int = 0,
) -> Identities:
  """Draws people from 1 and cameras from 1; distractors are person 0."""
  person_id = rng.integers(1, num_people + 1, num_images, dtype=np.int32)
  person_id[rng.permutation(num_images)[:num_distractors]] = 0
  return Identities(person_id, rng.integers(1, num_cameras + 1, num_images, dtype=np.int32))


def _embed(rng: np.random.Generator, query: Identities, gallery: Identities) -> Workload:
  num_people = max(query.person_id.max(), gallery.person_id.max()) + 1
  centres = rng.standard_normal((num_people, _WIDTH), np.float32)
  centres[0] = 0  # distractors are no one person
  embeddings = (_around(rng, centres, ids.person_id) for ids in (query, gallery))
  return Workload(*embeddings, query, gallery)


def _around(rng: np.random.Generator, centres: np.ndarray, person_id: np.ndarray) -> np.ndarray:
  """Returns [N, D] float32, L2-normalised; made in place, because the million is 2 GB."""
  embeddings = np.empty((len(person_id), _WIDTH), np.float32)
  for start in range(0, len(embeddings), _CHUNK_ROWS):
    rows = embeddings[start : start + _CHUNK_ROWS]
    rng.standard_normal(dtype=np.float32, out=rows)
    rows *= _NOISE
    rows += centres[person_id[start : start + _CHUNK_ROWS]]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  return embeddings
