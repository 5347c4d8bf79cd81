"""Our network and the PyTorch twin on the same work, turn by turn in one run."""

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.side import Lap, Peaks, Work
from benchmarks.worker import SideError, Worker

MEMORY_FORMATS = ("contiguous", "channels_last")
MODES = ("compile", "reduce-overhead", "max-autotune")
VARIANTS = tuple(f"{form}{mode}" for form in MEMORY_FORMATS for mode in ("", "+compile"))
ALL_VARIANTS = (*MEMORY_FORMATS, *(f"{form}+{mode}" for form in MEMORY_FORMATS for mode in MODES))

_TURN_SECONDS = 1.0  # at least, so that a turn is long beside what starting it costs
SETTLE_SECONDS = 0.3  # Intel's OpenMP spins 0.2 s for more work before its threads sleep
_PROBE_TURNS = 2
# Inductor's own setting for inference: weights become constants, folded with BatchNorm.
_PYTORCH_ENVIRONMENT = {"train_step": {}, "embedding": {"TORCHINDUCTOR_FREEZING": "1"}}


class Probe(NamedTuple):
  """A short measurement of a variant of the twin."""

  variant: str
  seconds: float | None  # of a step; None when it failed
  error: str = ""


class SideResult(NamedTuple):
  """What was measured on one side."""

  laps: list[Lap]  # one a round
  idle_cpu_seconds: float  # used while it was not its turn, in all rounds
  peaks: Peaks
  matrix_product_rate: float  # operations a second

  @property
  def seconds(self) -> float:
    """Median time of a step."""
    return statistics.median(lap.seconds for lap in self.laps)

  @property
  def cpu_seconds(self) -> float:
    """Median CPU time of a step, all threads together."""
    return statistics.median(lap.cpu_seconds for lap in self.laps)


class SideComparison(NamedTuple):
  """Both sides on one piece of work."""

  work: Work
  variant: str  # of the twin
  probes: list[Probe]  # by which the variant was chosen; [] when there was no choice
  steps_per_turn: int
  operations: int  # of a step, see `PytorchSide.model_operations`
  jax: SideResult
  pytorch: SideResult

  @property
  def ratio(self) -> float:
    """How many times as fast as PyTorch we are: the ratio of the medians."""
    return self.pytorch.seconds / self.jax.seconds

  @property
  def ratio_spread(self) -> tuple[float, float]:
    """The least and the largest ratio of one round."""
    rounds = zip(self.jax.laps, self.pytorch.laps)
    ratios = [theirs.seconds / ours.seconds for ours, theirs in rounds]
    return min(ratios), max(ratios)


def jax_worker(work: Work, devices: int = 1, cores: int | None = None) -> Worker:
  """Starts our side; see `JaxSide`."""
  factory = "benchmarks.jax_side:JaxSide"
  return Worker("JAX", factory, work, devices, cores, environment=_jax_environment(work, devices))


def _jax_environment(work: Work, devices: int) -> dict[str, str]:
  if work.device == "gpu":
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # PyTorch is on the same card
  if work.device == "tpu":
    return {}
  flags = os.environ.get("XLA_FLAGS", "")
  return {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
  }


def pytorch_worker(work: Work, variant: str) -> Worker:
  """Starts the twin in a variant."""
  environment = _PYTORCH_ENVIRONMENT[work.task]
  factory = "benchmarks.pytorch_side:PytorchSide"
  return Worker("PyTorch", factory, work, variant, environment=environment)


def file_workers(work: Work, files: Sequence[str], variant: str) -> tuple[Worker, Worker]:
  """Starts both sides of `embed_files`; see `file_sides`."""
  environment = _jax_environment(work, devices=1)
  ours = Worker("JAX", "benchmarks.file_sides:JaxFiles", work, files, environment=environment)
  theirs = Worker(
    "PyTorch",
    "benchmarks.file_sides:PytorchFiles",
    *(work, files, variant),
    environment=_PYTORCH_ENVIRONMENT[work.task],
  )
  return ours, theirs


def probe_variants(
  work: Work, variants: Sequence[str], on_probe: Callable[[Probe], None]
) -> list[Probe]:
  """Measures variants of the twin, each in a process of its own.

  Raises:
    SideError: when none works.
    UserError: when PyTorch lacks the device.
  """
  probes = []
  for variant in variants:
    probes.append(_probe(work, variant))
    on_probe(probes[-1])
  if all(probe.seconds is None for probe in probes):
    raise SideError(probes[0].error)
  return probes


def _probe(work: Work, variant: str) -> Probe:
  try:
    with pytorch_worker(work, variant) as worker:
      steps = _steps_per_turn(worker.call("warm_up").seconds)
      laps = [worker.call("lap", steps) for _ in range(_PROBE_TURNS)]
  except SideError as error:
    return Probe(variant, None, str(error))
  return Probe(variant, min(lap.seconds for lap in laps))


def fastest(probes: Sequence[Probe]) -> str:
  """Returns the variant of the shortest step."""
  return min((probe for probe in probes if probe.seconds is not None), key=_seconds).variant


def _seconds(probe: Probe) -> float:
  return probe.seconds


def compare(
  work: Work,
  variants: Sequence[str],
  rounds: int,
  on_probe: Callable[[Probe], None] = lambda probe: None,
  on_warm: Callable[[Worker, Lap], None] = lambda side, lap: None,
) -> SideComparison:
  """Measures both sides in turns, the twin in the fastest of the variants.

  Args:
    work: what to do.
    variants: of the twin.
    rounds: turns of each side.
    on_probe: called with each variant that was tried.
    on_warm: called with each side that has compiled, and a first lap.

  Raises:
    SideError: when a side fails.
    UserError: when a side lacks the device.
  """
  probes = probe_variants(work, variants, on_probe) if len(variants) > 1 else []
  variant = fastest(probes) if probes else variants[0]
  with jax_worker(work) as ours, pytorch_worker(work, variant) as theirs:
    sides = (ours, theirs)
    # Compilation is over on one side before the other starts.
    steps = _steps_per_turn(max(_warm_up(side, on_warm) for side in sides))
    results = alternate(sides, rounds, steps)
    return SideComparison(work, variant, probes, steps, theirs.call("model_operations"), *results)


def measure_alone(
  work: Work,
  rounds: int,
  on_warm: Callable[[Worker, Lap], None] = lambda side, lap: None,
) -> SideResult:
  """Measures our side where there is no twin; arguments and errors as of `compare`."""
  with jax_worker(work) as ours:
    [result] = alternate((ours,), rounds, _steps_per_turn(_warm_up(ours, on_warm)))
    return result


def _warm_up(side: Worker, on_warm: Callable[[Worker, Lap], None]) -> float:
  lap = side.call("warm_up")
  on_warm(side, lap)
  return lap.seconds


def alternate(sides: Sequence[Worker], rounds: int, steps: int) -> list[SideResult]:
  """Gives each side a turn a round, in an order that is reversed from round to round.

  The first step of a turn is not counted: the caches are the other side's, and the system takes
  back the pages of a process that rests. A user's steps follow one another.
  """
  laps = [[] for _ in sides]
  first_steps = [0.0 for _ in sides]  # CPU seconds
  before = [side.call("cpu_seconds") for side in sides]
  for number in range(rounds):
    order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
    for index in order:
      time.sleep(SETTLE_SECONDS)
      first_steps[index] += sides[index].call("lap", 1).cpu_seconds
      laps[index].append(sides[index].call("lap", steps))
  used = [side.call("cpu_seconds") - start for side, start in zip(sides, before)]
  busy = [
    first + steps * sum(lap.cpu_seconds for lap in own) for first, own in zip(first_steps, laps)
  ]
  peaks = [side.call("peaks") for side in sides]  # before the matrices, which are not the network's
  rates = [side.call("matrix_product_rate") for side in sides]
  idle = (all_of_it - in_laps for all_of_it, in_laps in zip(used, busy))
  return [SideResult(*columns) for columns in zip(laps, idle, peaks, rates)]


def _steps_per_turn(seconds: float) -> int:
  return max(1, math.ceil(_TURN_SECONDS / seconds))
