"""Where compiled programs are kept, and what happens where they cannot be."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from magnifier_jax.devices.compilation_cache import CompilationCacheError, use_compilation_cache

PROGRAM = """
import sys
import jax
from jax import monitoring
from magnifier_jax.devices.compilation_cache import use_compilation_cache

counts = {"hits": 0, "misses": 0}

def count(event, **_):
  name = event.rpartition("/cache_")[2]
  if name in counts:
    counts[name] += 1

monitoring.register_event_listener(count)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
use_compilation_cache(sys.argv[1] or None)
print("VALUE", float(jax.jit(lambda x: x * 3)(2.0)), counts["hits"], counts["misses"])
"""


def run(repository: Path, flag: str, home: Path, **variables: str) -> tuple[float, int, int]:
  """Compiles one program in a process of its own; returns its value, cache hits and misses."""
  environment = {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(repository)}
  result = subprocess.run(
    [sys.executable, "-c", PROGRAM, flag],
    env=environment | variables,
    capture_output=True,
    text=True,
    check=True,
  )
  value, hits, misses = result.stdout.split("VALUE ")[1].split()
  return float(value), int(hits), int(misses)


def test_a_second_process_finds_what_the_first_compiled(repository: Path, tmp_path: Path):
  folder = tmp_path / "given" / "by flag"
  value, hits, misses = run(repository, str(folder), tmp_path)
  assert (value, hits) == (6.0, 0)
  assert misses > 0
  assert run(repository, str(folder), tmp_path) == (6.0, misses, 0)
  for entry in folder.glob("*-cache"):  # as a kill in the middle of writing leaves it
    entry.write_bytes(entry.read_bytes()[:20])
  assert run(repository, str(folder), tmp_path)[:2] == (6.0, 0)


def test_the_users_cache_is_the_default(repository: Path, tmp_path: Path):
  run(repository, "", tmp_path)
  assert list((tmp_path / "magnifier_jax" / "xla").glob("*-cache"))


def test_the_environment_comes_before_the_default(repository: Path, tmp_path: Path):
  folder = tmp_path / "given"
  run(repository, "", tmp_path, JAX_COMPILATION_CACHE_DIR=str(folder))
  assert list(folder.glob("*-cache"))
  assert not (tmp_path / "magnifier_jax").exists()


def test_none_keeps_nothing(repository: Path, tmp_path: Path):
  folder = tmp_path / "given"
  value, hits, _ = run(repository, "none", tmp_path, JAX_COMPILATION_CACHE_DIR=str(folder))
  assert (value, hits) == (6.0, 0)
  assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
  file = tmp_path / "file"
  file.write_text("in the way")
  with pytest.raises(CompilationCacheError, match=r"--compilation_cache: cannot write in .*file/x"):
    use_compilation_cache(str(file / "x"))


def test_a_run_goes_on_without_the_users_cache(repository: Path, tmp_path: Path):
  file = tmp_path / "file"
  file.write_text("in the way")
  value, hits, _ = run(repository, "", file)
  assert (value, hits) == (6.0, 0)


def test_without_any_home_a_run_goes_on_with_one_warning(
  monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
  def no_home(path: str) -> str:
    return path

  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setattr(os.path, "expanduser", no_home)
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  with caplog.at_level(logging.WARNING, logger="absl"):
    use_compilation_cache(None)
  assert caplog.messages == [
    "Nothing compiled is kept: ~/.cache: no home is known of that user; write the whole path"
  ]
