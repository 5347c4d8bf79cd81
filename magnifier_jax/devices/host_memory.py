"""The host's memory, as the C library keeps it. Other libraries than glibc are left alone."""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

_TRANSPARENT_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLES = "GLIBC_TUNABLES"
_HUGE_PAGES = "glibc.malloc.hugetlb"


def restart_with_huge_pages() -> None:
  """Starts this program anew, in the same process, so that glibc asks the kernel for huge pages.

  A training step on a CPU takes a GB from the system and gives it back: 330,000 pages of 4 KB, or
  2,000 faults in all with huge ones. Where the kernel waits to be asked ('madvise', the default of
  Debian and Ubuntu), glibc asks if a variable says so when it starts, and only then. A value of the
  user's own stays. Nothing happens elsewhere, nor where JAX will compute on something else.

  To be called first in a program.
  """
  tunables = os.environ.get(_TUNABLES, "")
  if _HUGE_PAGES in tunables or not sys.executable or not _kernel_waits() or not _computes_on_cpu():
    return
  os.environ[_TUNABLES] = ":".join(filter(None, [tunables, f"{_HUGE_PAGES}=1"]))
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _kernel_waits() -> bool:
  try:
    return "[madvise]" in _TRANSPARENT_HUGE_PAGES.read_text()
  except OSError:  # another system, or a kernel without them
    return False


def _computes_on_cpu() -> bool:
  """Whether JAX is told to use the CPU, or has no plugin for anything else."""
  platforms = os.environ.get("JAX_PLATFORMS")
  if platforms:
    return platforms == "cpu"
  plugins = importlib.metadata.entry_points(group="jax_plugins")
  return not plugins and importlib.util.find_spec("libtpu") is None


def release_freed_memory() -> None:
  """Gives the system the memory that was freed; glibc keeps what lies between what is in use.

  Making and compiling what trains a ResNet-50 leaves 200 to 450 MB of it, beside 565 MB of state.
  """
  if sys.platform == "linux":
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
      trim(ctypes.c_size_t(0))
