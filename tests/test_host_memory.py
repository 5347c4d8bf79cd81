"""Freed memory goes back to the system, and threads share a heap."""

import subprocess
import sys
from pathlib import Path

import pytest

from magnifier_jax.host_memory import release_freed_memory, will_compute_on_cpu

# Four threads hold memory at the same time; prints how many heaps glibc made of it.
COUNT_HEAPS = """
import ctypes, sys, threading
from magnifier_jax.host_memory import share_one_arena

if sys.argv[1] == "one":
  share_one_arena()
together = threading.Barrier(4)

def allocate():
  pieces = [bytearray(100_000) for _ in range(10)]
  together.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
  thread.start()
for thread in threads:
  thread.join()
ctypes.CDLL(None).malloc_stats()
"""


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


@pytest.mark.skipif(sys.platform != "linux", reason="counts glibc's arenas")
@pytest.mark.parametrize(("arenas", "is_one"), [("one", True), ("default", False)])
def test_threads_share_one_arena_where_asked(arenas: str, is_one: bool):
  command = [sys.executable, "-c", COUNT_HEAPS, arenas]
  statistics = subprocess.run(command, capture_output=True, text=True, check=True).stderr
  assert (statistics.count("Arena ") == 1) == is_one


@pytest.mark.parametrize(
  ("platforms", "on_cpu"), [("cpu", True), ("cuda", False), ("cuda,cpu", False)]
)
def test_platforms_of_the_environment_say_whether_it_is_the_cpu(
  platforms: str, on_cpu: bool, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setenv("JAX_PLATFORMS", platforms)
  assert will_compute_on_cpu() == on_cpu
