"""Targets by name, as `v5e:2x4` or `h100:8`, and the devices that their compilers compile for."""

import contextlib
import fnmatch
import math
import os
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from magnifier_jax.compilers.chips import GPU_CARDS, TPU_CHIPS, GpuCard, TpuChip, target_config
from magnifier_jax.errors import UserError

_CARDS_PER_HOST = 8
_GPU_PLUGINS = ("jax-cuda12-pjrt", "jax-cuda13-pjrt")
# libtpu asks Google's metadata server, and locks a file, as if it were to use a TPU.
_WITHOUT_A_TPU = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class TargetError(UserError):
  """A target that nobody compiles for, or whose compiler is missing."""


class Target(NamedTuple):
  """What to compile for."""

  name: str
  chip: TpuChip | GpuCard
  shape: tuple[int, ...]  # of a TPU slice, in chips; (n,) is n GPUs, (1,) one chip

  @property
  def is_tpu(self) -> bool:
    """Whether libtpu compiles for it."""
    return isinstance(self.chip, TpuChip)

  @property
  def chips(self) -> int:
    """TPU chips, or GPUs."""
    return math.prod(self.shape)

  @property
  def devices_per_chip(self) -> int:
    """How many of JAX's devices a chip is."""
    return self.chip.devices_per_chip if self.is_tpu else 1

  @property
  def memory_bytes(self) -> int:
    """Memory of one device."""
    if self.is_tpu:
      return self.chip.memory_bytes // self.chip.devices_per_chip
    return self.chip.device_memory_size


def parse_target(name: str) -> Target:
  """Reads a target's name.

  Args:
    name: `GENERATION:SHAPE` of a TPU slice, as v5e:2x4 or v4:2x2x2; `CARD:NUMBER` of GPUs, as
      h100:8; with :1, or nothing, one chip or card.

  Raises:
    TargetError: when it has another form or the chip is unknown.
  """
  match = re.fullmatch(r"(\w+)(?::(\d+(?:x\d+)*))?", name)
  chip = match and (TPU_CHIPS.get(match[1]) or GPU_CARDS.get(match[1]))
  if not chip:
    raise TargetError(
      f"--target: {name!r} is unknown; choose a TPU slice by its shape ({', '.join(TPU_CHIPS)}, "
      f"as v5e:2x4, v5e:1) or a number of GPUs ({', '.join(GPU_CARDS)}, as h100:8)"
    )
  shape = tuple(int(size) for size in (match[2] or "1").split("x"))
  target = Target(name, chip, shape)
  if 0 in shape:
    raise TargetError(f"--target: {name} has no chips")
  if target.is_tpu and len(shape) == 1 and shape != (1,):
    raise TargetError(
      f"--target: {name} is a number of chips; a TPU slice has a shape, as {match[1]}:2x2"
    )
  if not target.is_tpu and len(shape) > 1:
    raise TargetError(f"--target: {name} is a shape; GPUs have a number, as {match[1]}:8")
  return target


def use_no_accelerator() -> None:
  """Keeps JAX and the compilers from looking for accelerators; to be called before JAX starts."""
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ.update(_WITHOUT_A_TPU)


def open_devices(target: Target) -> list:
  """Returns a target's devices, which nothing can run on: `jax.Device`s for a mesh.

  Raises:
    TargetError: when the compiler is missing, does not fit JAX, or has no such slice.
  """
  check = _check_libtpu if target.is_tpu else _check_gpu_plugin
  check()
  import jax

  # Both compilers print, from C++, that they miss the hardware.
  with _silent_stderr():
    jax.devices()  # finds the CUDA plugin
    return _tpu_devices(target) if target.is_tpu else _gpu_devices(target)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
  sys.stderr.flush()
  kept = os.dup(2)
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)


def _tpu_devices(target: Target) -> list:
  from jax.experimental import topologies

  generation = target.name.partition(":")[0]
  alone = target.shape == (1,)
  options = {"chips_per_host_bounds": [1, 1, 1]} if alone else {}
  if target.chip.configuration:
    options["chip_config_name"] = target.chip.configuration
  name = f"{generation}:{'1x1x1' if alone else 'x'.join(map(str, target.shape))}"
  try:
    topology = topologies.get_topology_desc(topology_name=name, platform="tpu", **options)
  except Exception as error:  # of libtpu, which has no type of its own for it
    raise TargetError(
      f"--target: {target.name}: libtpu {metadata.version('libtpu')} has no such slice: "
      f"{_first_line(error)}; it knows {_known_slices()}"
    ) from error
  return list(topology.devices)


def _check_libtpu() -> None:
  wanted = libtpu_of_jax()
  install = f"pip install 'libtpu=={wanted}'" if wanted else "pip install 'jax[tpu]'"
  try:
    version = metadata.version("libtpu")
  except metadata.PackageNotFoundError:
    raise TargetError(f"--target: TPUs' compiler is missing; {install} (200 MB)") from None
  if wanted and not fnmatch.fnmatch(version, wanted):
    raise TargetError(
      f"--target: libtpu {version} does not fit jax {metadata.version('jax')}; {install}"
    )


def libtpu_of_jax() -> str | None:
  """Returns the versions, as '0.0.42.*', that jax's extra `tpu` asks for; None: no exact one."""
  for requirement in metadata.requires("jax") or ():
    if match := re.match(r"libtpu\s*\(?==\s*([\w.*]+)", requirement):
      return match[1]
  return None


def _known_slices() -> str:
  """Returns the smallest slice of each generation that the installed libtpu compiles for."""
  from jax.experimental import topologies

  known = []
  for generation in TPU_CHIPS:
    shape = "2x2" if generation in ("v2", "v3", "v5e", "v6e") else "2x2x1"
    try:
      topologies.get_topology_desc(topology_name=f"{generation}:{shape}", platform="tpu")
    except Exception:  # it does not know this one; there is no type of its own for that
      continue
    known.append(f"{generation}:{shape}")
  return f"multiples of {', '.join(known)}, and one chip as v5e:1"


def _gpu_devices(target: Target) -> list:
  from jax.experimental import topologies

  in_a_host = min(target.chips, _CARDS_PER_HOST)
  if target.chips % in_a_host:
    raise TargetError(
      f"--target: {target.name}: more than {_CARDS_PER_HOST} GPUs are whole machines of "
      f"{_CARDS_PER_HOST}"
    )
  topology = f"1x{target.chips // in_a_host}x{in_a_host}"
  try:
    description = topologies.get_topology_desc(
      topology, platform="cuda", topology=topology, target_config=target_config(target.chip)
    )
  except Exception as error:
    raise TargetError(
      f"--target: {target.name}: JAX's CUDA plugin does not describe it: {_first_line(error)}"
    ) from error
  return list(description.devices)


def _check_gpu_plugin() -> None:
  jax_version = metadata.version("jax")
  versions = {name: _version(name) for name in _GPU_PLUGINS}
  found = {name: version for name, version in versions.items() if version}
  install = f"pip install {_GPU_PLUGINS[0]}=={jax_version}"
  if not found:
    raise TargetError(f"--target: GPUs' compiler is missing; {install} (170 MB)")
  if jax_version not in found.values():
    [name, version], *_ = found.items()
    raise TargetError(f"--target: {name} {version} does not fit jax {jax_version}; {install}")


def _version(package: str) -> str | None:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _first_line(error: Exception) -> str:
  return str(error).strip().splitlines()[0]
