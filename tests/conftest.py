"""Several CPU devices, no silent broadcasting, and paths that the tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

NUM_DEVICES = 8
MIN_COMPILE_SECONDS = 0.2  # what takes less is not worth a file
# First, so that none of them is left to one process at the end.
LONGEST_FILES = (
  "test_train.py",
  "test_reference.py",
  "test_device_counts.py",
  "test_train_step.py",
)

# Before anything starts a backend.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={NUM_DEVICES}"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

# XLA's newer way of compiling fusions leaves LLVM three times as much to do. JAX 0.11 has no other.
QUICK_FUSIONS = "--xla_cpu_use_fusion_emitters=false" if jax.__version_info__ < (0, 11) else ""

ROOT = Path(__file__).parents[1]
# Holds `cuhk03-np-p1`, real images of CUHK03-NP, and `protocols`, published lists of images.
TEST_DATA = "MAGNIFIER_JAX_TEST_DATA"


def is_quick(config: pytest.Config) -> bool:
  """Whether the slow tests are left out."""
  return config.option.markexpr == "not slow"


def pytest_configure(config: pytest.Config) -> None:
  """Before anything starts a backend."""
  if is_quick(config):
    os.environ["XLA_FLAGS"] += f" {QUICK_FUSIONS}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Orders the files: the longest, then the others as they are."""
  order = {name: place for place, name in enumerate(LONGEST_FILES)}
  items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
  """Lets runs of one network compile once, in all workers and the processes that tests start."""
  base = tmp_path_factory.getbasetemp()
  # Each worker's folder is within that of the whole run, which pytest makes anew.
  folder = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "jax_cache")
  jax.config.update("jax_compilation_cache_dir", folder)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
  os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(MIN_COMPILE_SECONDS)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
  """Lets XLA do little where the slow tests are left out: tiny networks mostly compile.

  With the options for users a step of one takes 10.8 CPU seconds in place of 1.8. A module with
  `COMPILES_AS_USERS_DO` keeps them but for fusions; the slow tests keep them all.
  """
  if not is_quick(request.config) or hasattr(request.module, "COMPILES_AS_USERS_DO"):
    yield
    return
  from magnifier_jax.devices import mesh

  jax.config.update("jax_disable_most_optimizations", True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # in processes that tests start
    patch.setattr(mesh, "options_to_run_once", lambda mesh: {})
    yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def repository() -> Path:
  """The checkout."""
  return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
  """Folder of real CUHK03 images, which not every machine has."""
  return _test_data("cuhk03-np-p1")


@pytest.fixture(scope="session")
def protocols() -> Path:
  """Folder of published lists of images, which not every machine has."""
  return _test_data("protocols")


def _test_data(name: str) -> Path:
  if TEST_DATA not in os.environ:
    pytest.skip(f"${TEST_DATA} names no folder that holds {name}")
  folder = Path(os.environ[TEST_DATA]) / name
  assert folder.is_dir(), f"${TEST_DATA}: no folder {folder}"
  return folder


@pytest.fixture
def float64():
  """JAX with 64-bit numbers for one test."""
  with jax.enable_x64(True):
    yield
