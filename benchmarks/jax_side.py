"""Our side of the speed benchmarks. It needs neither TensorFlow nor ml_collections."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.cuhk03_config import NUM_PEOPLE
from benchmarks.side import Peaks, Side, Work, draw_batch
from benchmarks.trace_costs import KernelCost, OpCost, costs_by_kernel, costs_by_kind
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.devices.host_memory import release_freed_memory
from magnifier_jax.errors import UserError
from magnifier_jax.models.network import Network, create_network
from magnifier_jax.train_state import Tree
from magnifier_jax.train_step import create_trainer, draw_state

_EXTRAS = {"gpu": "cuda12", "tpu": "tpu"}  # of jax
_FROM_CACHE = "/jax/compilation_cache/cache_hits"  # JAX's name of the event


class Compilation(NamedTuple):
  """What it took to make the program of a step."""

  trace_seconds: float  # to what XLA takes
  compile_seconds: float  # by XLA, or to read it from the cache
  from_cache: bool
  operations: float | None  # of a step as XLA counts them; None where it does not tell
  arguments_bytes: int
  temporaries_bytes: int


class JaxSide(Side):
  """Steps of `magnifier_jax`.

  Args:
    work: what to do.
    devices: that share the batch.
    cores: of a CPU that this process keeps to; None has all.

  Raises:
    UserError: when JAX does not find the devices.
  """

  def __init__(self, work: Work, devices: int = 1, cores: int | None = None):
    super().__init__(work)
    if cores is not None and hasattr(os, "sched_setaffinity"):
      os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    self._devices = _find_devices(work.device, devices)
    mesh = mesh_lib.data_mesh(self._devices)
    config = work.config()
    self._batch = mesh_lib.to_global(draw_batch(work), mesh)
    if work.task == "train_step":
      trainer = create_trainer(config, NUM_PEOPLE, 1, mesh)
      self._state = draw_state(trainer, 0)
      self._step = self._compile(trainer.step)
      release_freed_memory()
    else:
      network, init = create_network(config, NUM_PEOPLE)
      on_all = mesh_lib.replicated(mesh)
      draw = jax.jit(
        init, out_shardings=on_all, compiler_options=mesh_lib.options_to_run_once(mesh)
      )
      self._state = draw(jax.random.key(0))
      embed = jax.jit(
        lambda trees, batch: _embed(network, *trees, batch.image),
        compiler_options=mesh_lib.compiler_options(mesh, network.dtype, train=False),
      )
      self._step = self._compile(embed)

  def _compile(self, function: jax.stages.Wrapped) -> jax.stages.Compiled:
    """Compiles for the state and the batch, and notes what that took."""
    hits = []
    jax.monitoring.register_event_listener(
      lambda event, **_: hits.append(event) if event == _FROM_CACHE else None
    )
    start = time.perf_counter()
    lowered = function.lower(self._state, self._batch)
    traced = time.perf_counter()
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    self._compilation = Compilation(
      trace_seconds=traced - start,
      compile_seconds=time.perf_counter() - traced,
      from_cache=bool(hits),
      operations=_operations(lowered),
      arguments_bytes=memory.argument_size_in_bytes,
      temporaries_bytes=memory.temp_size_in_bytes,
    )
    return compiled

  def compilation(self) -> Compilation:
    """Returns what it took to make the program."""
    return self._compilation

  def run(self, steps: int) -> None:
    """Does steps one after the other, and waits for the last."""
    for _ in range(steps):
      if self.work.task == "train_step":
        self._state, result = self._step(self._state, self._batch)
      else:
        result = self._step(self._state, self._batch)
    jax.block_until_ready(result)

  def matrix_product(self, size: int) -> Callable[[int], None]:
    """Draws square matrices in the work's dtype; what it returns multiplies them n times."""
    keys = jax.random.split(jax.random.key(0))
    with jax.default_device(self._devices[0]):
      a, b = (jax.random.normal(key, (size, size), self.work.dtype) for key in keys)

    def multiply(times: int) -> None:
      for _ in range(times):
        product = a @ b
      product.block_until_ready()

    return multiply

  def peaks(self) -> Peaks:
    """Returns the most memory so far; XLA does not start a GPU's peak anew."""
    if self.work.device == "cpu":
      return super().peaks()
    return Peaks(None, self._devices[0].memory_stats()["peak_bytes_in_use"] / 2**20)

  def trace(self, folder: Path, steps: int) -> list[OpCost]:
    """Writes a profile of steps, and returns the costs of one by kind of operation."""
    with jax.profiler.trace(folder):
      self.run(steps)
    return costs_by_kind(folder, self._step.as_text(), steps)

  def kernels(self, folder: Path, steps: int) -> list[KernelCost]:
    """Returns the kernels of one step in what `trace` has written, dearest first."""
    return costs_by_kernel(folder, self._step.as_text(), steps)


def _find_devices(kind: str, count: int) -> list[jax.Device]:
  try:
    found = jax.local_devices(backend=kind)
  except RuntimeError as error:
    raise UserError(
      f"--device={kind}: JAX finds no {kind.upper()}; pip install 'jax[{_EXTRAS[kind]}]', "
      "or leave the option out"
    ) from error
  if len(found) < count:
    raise UserError(f"--devices: JAX finds {len(found)} of {count}; ask for fewer")
  return found[:count]


def _operations(lowered: jax.stages.Lowered) -> float | None:
  costs: dict[str, Any] | None = lowered.cost_analysis()
  return (costs or {}).get("flops")


def _embed(network: Network, params: Tree, batch_stats: Tree, images: jax.Array) -> jax.Array:
  """Returns embeddings [B, D] float32 of all branches, not normalised; parts are predicted."""
  output, _ = network.apply(params, batch_stats, images, train=False)
  return jnp.concatenate(list(output.embeddings().values()), axis=1).astype(jnp.float32)
