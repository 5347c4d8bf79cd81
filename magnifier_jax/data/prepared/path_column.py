"""A million file names in little memory."""

import os
from collections.abc import Sequence

import numpy as np


class PathColumn(Sequence[str]):
  """Paths of the records of a split, kept as bytes and decoded when asked for."""

  def __init__(self, encoded: np.ndarray, starts: np.ndarray, ends: np.ndarray):
    """Takes the columns as they are stored.

    Args:
      encoded: all paths one behind the other, (bytes,) uint8.
      starts: where each path begins, (N,) int64.
      ends: where each path ends, (N,) int64.
    """
    self._encoded = encoded
    self._starts = starts
    self._ends = ends

  @classmethod
  def of(cls, paths: Sequence[str]) -> "PathColumn":
    """Returns the column of some paths."""
    encoded = [os.fsencode(path) for path in paths]
    ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    return cls(np.frombuffer(b"".join(encoded), np.uint8), starts, ends)

  @property
  def encoded(self) -> np.ndarray:
    """All paths one behind the other, (bytes,) uint8."""
    return self._encoded

  @property
  def ends(self) -> np.ndarray:
    """Where each path ends, (N,) int64."""
    return self._ends

  def take(self, rows: np.ndarray) -> "PathColumn":
    """Returns some of the paths; `rows`: (M,) integers."""
    return PathColumn(self._encoded, self._starts[rows], self._ends[rows])

  def __len__(self) -> int:
    return len(self._ends)

  def __getitem__(self, index: int) -> str:
    return os.fsdecode(self._encoded[self._starts[index] : self._ends[index]].tobytes())
