"""Compiles a program for a target, and says what it takes there."""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

import magnifier_jax
from magnifier_jax.compilers import costs, hlo_text
from magnifier_jax.compilers.costs import Collective, Cost
from magnifier_jax.compilers.hlo_text import SourceLine
from magnifier_jax.compilers.targets import Target
from magnifier_jax.errors import UserError

_PACKAGE = Path(magnifier_jax.__file__).parent
_NUM_DEAREST = 10
# On the way to every instruction: the switch between platforms, and what traces the program.
_TELLS_NOTHING = ("models/platforms.py", "compilers/", "tools/")
_GIB_OF = {"": 2**-30, "K": 2**-20, "M": 2**-10, "G": 1, "T": 2**10}
_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")


class CompilerError(UserError):
  """A compiler refuses a program."""


class OutOfMemoryError(CompilerError):
  """A program needs more memory than the chip has."""


class Memory(NamedTuple):
  """Bytes of one device."""

  arguments: int
  temporaries: int
  outputs: int
  aliases: int  # of the outputs, what takes an argument's place: donation
  code: int

  @property
  def total(self) -> int:
    """What the program needs at once."""
    return self.arguments + self.temporaries + self.outputs - self.aliases + self.code


class Dear(NamedTuple):
  """One of the dearest instructions."""

  name: str  # the compiler's
  operation: str  # JAX's, with the functions around it
  results: list[str]  # as 'bf16[32,96,48,256]'
  cost: int  # cycles of a TPU, bytes moved by a GPU
  share: float  # of all
  source: tuple[SourceLine, ...]  # innermost first, one line a file; files relative to the package


class Estimate(NamedTuple):
  """What a compiler says about a program; None is what it does not tell. Numbers are a device's."""

  target: Target
  images: int  # of the global batch
  memory: Memory
  collectives: list[Collective]
  cycles: int | None  # TPU
  flops: float | None  # TPU
  kernels: int | None  # GPU, launches
  traffic_bytes: int | None  # GPU
  without_estimate: dict[str, int]  # TPU: what `cycles` leaves out, {opcode: how often it runs}
  dearest: list[Dear]
  compile_seconds: float
  hlo: str  # the compiled program

  @property
  def milliseconds(self) -> float | None:
    """The time of a step by the cycles; at best, since they leave things out."""
    clock = self.target.chip.clock_hz if self.target.is_tpu else None
    return 1e3 * self.cycles / clock if clock and self.cycles else None

  @property
  def peak_share(self) -> float | None:
    """Share of the chip's products of bfloat16 a second."""
    if self.milliseconds is None or not self.flops:
      return None
    peak = self.target.chip.peak_flops / self.target.devices_per_chip
    return self.flops / (self.milliseconds / 1e3) / peak

  @property
  def traffic_milliseconds(self) -> float | None:
    """The time in which a GPU's memory moves the traffic; no step is quicker."""
    if self.traffic_bytes is None:
      return None
    return 1e3 * self.traffic_bytes / self.target.chip.memory_bandwidth

  @property
  def fits(self) -> bool:
    """Whether the device has the memory."""
    return self.memory.total <= self.target.memory_bytes


def estimate(
  lowered: jax.stages.Lowered, target: Target, images: int, *, quick: bool = False
) -> Estimate:
  """Compiles a program and reads what it costs.

  Args:
    lowered: for devices of the target.
    target: what to compile for.
    images: of the global batch.
    quick: let a TPU's compiler search less: a tenth of the time, memory within a few percent, and
      cycles that mean nothing, so they are None.

  Raises:
    OutOfMemoryError: when the compiler says that it does not fit.
    CompilerError: when the compiler refuses it for another reason.
  """
  start = time.monotonic()
  with _effort(-1.0 if quick and target.is_tpu else 0.0):
    compiled = _compile(lowered, target, images)
  seconds = time.monotonic() - start
  hlo = compiled.as_text()
  module = hlo_text.parse(hlo)
  told = costs.cycle_costs(module) if target.is_tpu else costs.traffic_costs(module)
  total = sum(cost.amount for cost in told)
  is_timed = target.is_tpu and not quick
  return Estimate(
    target=target,
    images=images,
    memory=_memory(compiled),
    collectives=costs.collectives(module),
    cycles=total if is_timed else None,
    flops=compiled.cost_analysis()["flops"] if target.is_tpu else None,
    kernels=None if target.is_tpu else sum(cost.times for cost in told),
    traffic_bytes=None if target.is_tpu else total,
    without_estimate=costs.without_estimate(module) if is_timed else {},
    dearest=[] if quick else [_dear(cost, total) for cost in told[:_NUM_DEAREST]],
    compile_seconds=seconds,
    hlo=hlo,
  )


def _compile(lowered: jax.stages.Lowered, target: Target, images: int) -> jax.stages.Compiled:
  try:
    return lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    message = str(error)
    if "RESOURCE_EXHAUSTED" not in message:
      first = message.strip().splitlines()[0]
      raise CompilerError(f"{target.name}: the compiler refuses the program: {first}") from error
    need = "has no room"
    if used := _OUT_OF_MEMORY.search(message):
      needed, there = (float(used[i]) * _GIB_OF[used[i + 1]] for i in (1, 3))
      need = f"needs {needed:.2f} of {there:.2f} GiB"
    raise OutOfMemoryError(
      f"{target.name}: a chip {need} with {images / target.chips:g} images; take fewer a chip, or "
      "--config.model.rematerialize=True; --fit finds how many"
    ) from error


@contextlib.contextmanager
def _effort(effort: float) -> Iterator[None]:
  """How much a TPU's compiler searches; 0 is its default, −1 the least."""
  before = jax.config.jax_exec_time_optimization_effort
  jax.config.update("jax_exec_time_optimization_effort", effort)
  try:
    yield
  finally:
    jax.config.update("jax_exec_time_optimization_effort", before)


def _memory(compiled: jax.stages.Compiled) -> Memory:
  stats = compiled.memory_analysis()
  return Memory(
    stats.argument_size_in_bytes,
    stats.temp_size_in_bytes,
    stats.output_size_in_bytes,
    stats.alias_size_in_bytes,
    stats.generated_code_size_in_bytes,
  )


def _dear(cost: Cost, total: int) -> Dear:
  own: dict[str, int] = {}  # file → its innermost line
  for place in cost.source:
    path = Path(place.file)
    if path.is_relative_to(_PACKAGE):
      own.setdefault(path.relative_to(_PACKAGE).as_posix(), place.line)
  source = tuple(
    SourceLine(file, line) for file, line in own.items() if not file.startswith(_TELLS_NOTHING)
  )
  results = [str(array) for array in cost.instruction.result]
  return Dear(
    cost.instruction.name, cost.op_name, results, cost.amount, cost.amount / total, source
  )
