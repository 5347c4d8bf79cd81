"""Freed memory goes back to the system."""

import sys
from pathlib import Path

import pytest

from magnifier_jax.host_memory import release_freed_memory


def resident_megabytes() -> float:
  pages = int(Path("/proc/self/statm").read_text().split()[1])
  return pages * 4096 / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_pieces_are_given_back():
  # Pieces below malloc's threshold for maps of their own; every tenth stays, so that the heap
  # cannot shrink by itself.
  pieces = [bytearray(100_000) for _ in range(2000)]
  kept = pieces[::10]
  del pieces
  before = resident_megabytes()
  release_freed_memory()
  assert before - resident_megabytes() > 100
  assert len(kept) == 200
