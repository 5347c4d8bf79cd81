"""Freed memory goes back to the system, and programs that compute on a CPU ask for huge pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from magnifier_jax.devices import host_memory
from magnifier_jax.devices.host_memory import release_freed_memory, restart_with_huge_pages

ASKS = "glibc.malloc.hugetlb=1"
PROGRAM = """
import os, sys
from pathlib import Path
from magnifier_jax.devices import host_memory

host_memory._TRANSPARENT_HUGE_PAGES = Path(sys.argv[1])
print("start", os.getpid(), flush=True)
host_memory.restart_with_huge_pages()
print(os.environ["GLIBC_TUNABLES"], sys.argv[2:])
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  """The kernel's setting, which a test may change: it waits to be asked. JAX uses the CPU."""
  setting = tmp_path / "enabled"
  setting.write_text("always [madvise] never\n")
  monkeypatch.setattr(host_memory, "_TRANSPARENT_HUGE_PAGES", setting)
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  monkeypatch.setenv("GLIBC_TUNABLES", "")  # so that what the program sets there is undone
  return setting


@pytest.fixture
def restarts(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
  """Command lines that would have replaced this process."""
  started = []
  monkeypatch.setattr(os, "execv", lambda _, arguments: started.append(arguments))
  return started


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


def test_program_starts_again_once_with_its_arguments(kernel: Path):
  command = [sys.executable, "-c", PROGRAM, kernel, "--workdir=a b", "--flag"]
  lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
  assert lines[0] == lines[1]  # in the same process
  assert lines[2:] == [f"{ASKS} ['--workdir=a b', '--flag']"]


def test_other_tunables_stay(restarts: list, monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
  restart_with_huge_pages()
  assert os.environ["GLIBC_TUNABLES"] == f"glibc.malloc.check=0:{ASKS}"
  assert len(restarts) == 1


def test_users_own_choice_stays(restarts: list, monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
  restart_with_huge_pages()
  assert not restarts


@pytest.mark.parametrize("setting", ["[always] madvise never\n", "always madvise [never]\n", None])
def test_kernels_that_do_not_wait_are_left_alone(
  setting: str | None, restarts: list, kernel: Path, monkeypatch: pytest.MonkeyPatch
):
  if setting is None:
    kernel.unlink()
  else:
    kernel.write_text(setting)
  restart_with_huge_pages()
  assert not restarts


@pytest.mark.parametrize(
  ("platforms", "is_restarted"), [("cpu", True), ("cuda", False), ("cuda,cpu", False)]
)
def test_only_programs_that_compute_on_the_cpu(
  platforms: str, is_restarted: bool, restarts: list, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setenv("JAX_PLATFORMS", platforms)
  restart_with_huge_pages()
  assert bool(restarts) == is_restarted
