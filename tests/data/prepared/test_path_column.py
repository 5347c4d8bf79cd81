"""Paths as one block of bytes."""

import os

import numpy as np
import pytest

from magnifier_jax.data.prepared.path_column import PathColumn

# Names that are not UTF-8 come from old archives.
PATHS = ["train/0001_c1.jpg", "", "ü/人.png", os.fsdecode(b"latin\xe9.jpg")]


def test_paths_come_out_as_they_went_in():
  assert list(PathColumn.of(PATHS)) == PATHS
  assert len(PathColumn.of(PATHS)) == 4
  assert PathColumn.of(PATHS)[-1] == PATHS[-1]
  assert list(PathColumn.of([])) == []


def test_some_of_the_paths_of_some_of_the_paths():
  some = PathColumn.of(PATHS).take(np.array([3, 0, 2]))
  assert list(some) == [PATHS[3], PATHS[0], PATHS[2]]
  assert list(some.take(np.array([2]))) == [PATHS[2]]


def test_there_is_no_path_behind_the_last():
  with pytest.raises(IndexError):
    PathColumn.of(PATHS)[4]
