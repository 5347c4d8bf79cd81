"""Devices and global arrays: one `data` axis, batch sharded, state replicated."""

import collections
import platform
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from magnifier_jax.errors import UserError

_PREFETCHED = 2


class DeviceError(UserError):
  """The batch and the devices do not fit."""


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
  """Returns a mesh with the one axis `data` over all devices of all processes."""
  devices = jax.devices() if devices is None else devices
  return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Sharding of arrays whose leading axis is the batch."""
  return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
  """Sharding of the state and of results: a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def compiler_options(mesh: Mesh, dtype: jnp.dtype, *, train: bool) -> dict[str, str]:
  """Returns XLA's options for a network in `dtype` on the mesh.

  On x86 CPUs, float32 convolutions are left to Eigen. XLA's default is the library YNNPACK, for
  convolutions, products and reductions alike. It is slower at convolutions, most of all at their
  kernels' gradients (75 ms in place of 18 for 64 channels at 96 × 48), and quicker at reductions by
  far: a step of a ResNet-50 at batch 8 took 3.9 s with all of it, 6.0 s with none and 3.5 s without
  its convolutions. At products it is 2 % quicker over a step, and 4 % slower over an embedding. In
  float64 Eigen has no convolutions, and YNNPACK's are 15 to 28 × as quick as XLA's loops.
  """
  is_x86_cpu = mesh.devices.flat[0].platform == "cpu" and platform.machine() in ("x86_64", "AMD64")
  if is_x86_cpu and dtype == jnp.float32:
    uses = ["LIBRARY_FUSION_TYPE_REDUCE"]
    if train:
      uses.append("LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT")
    return {"xla_cpu_experimental_ynn_fusion_type": ",".join(uses)}
  return {}


def options_to_run_once(mesh: Mesh) -> dict[str, str]:
  """Returns XLA's options for a program that takes longer to compile than to run.

  On a CPU, LLVM does less: drawing the weights of a ResNet-18 compiles in 4.5 s in place of 12, to
  the same bits. A training step would gain nothing.
  """
  is_cpu = mesh.devices.flat[0].platform == "cpu"
  return {"xla_backend_optimization_level": "1"} if is_cpu else {}


def check_batch_size(batch_size: int, mesh: Mesh, field: str) -> None:
  """Raises `DeviceError`, naming the config field, unless the devices divide the batch evenly."""
  if batch_size % mesh.size:
    raise DeviceError(
      f"{field}: a batch of {batch_size} images cannot be split over {mesh.size} devices; "
      f"make it a multiple of {mesh.size}"
    )


def to_global(batch: Any, mesh: Mesh) -> Any:
  """Makes global arrays, sharded over the batch, from this process's slice of each array."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda local: jax.make_array_from_process_local_data(sharding, local), batch)


def prefetch(batches: Iterable[Any], mesh: Mesh) -> Iterator[Any]:
  """Yields batches as global arrays; the next two are already on their way to the devices."""
  queue = collections.deque()
  for batch in batches:
    queue.append(to_global(batch, mesh))
    if len(queue) > _PREFETCHED:
      yield queue.popleft()
  while queue:
    yield queue.popleft()
