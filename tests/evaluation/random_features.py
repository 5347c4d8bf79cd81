"""Random embeddings and identities: well spread ones, and coarse ones that are full of ties."""

import numpy as np

from magnifier_jax.evaluation.ranking import Identities


def clustered(
  rng: np.random.Generator, person_id: np.ndarray, width: int, noise: float
) -> np.ndarray:
  """Returns [N, width] float32, L2-normalised, around one centre a person."""
  centres = np.random.default_rng(0).normal(size=(person_id.max() + 2, width))
  return _normalise(centres[person_id] + noise * rng.normal(size=(len(person_id), width)))


def coarse(rng: np.random.Generator, num_rows: int, width: int = 16) -> np.ndarray:
  """Returns [N, 16 or 64] float32 of ±1 / √width: products are exact, and often equal."""
  return _normalise(rng.choice([-1.0, 1.0], (num_rows, width)))


def identities(rng: np.random.Generator, num_rows: int, num_people: int) -> Identities:
  """Returns random people, from −1 (junk), and cameras 1 to 3."""
  person_id = rng.integers(-1, num_people, num_rows).astype(np.int32)
  return Identities(person_id, rng.integers(1, 4, num_rows).astype(np.int32))


def _normalise(vectors: np.ndarray) -> np.ndarray:
  return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
