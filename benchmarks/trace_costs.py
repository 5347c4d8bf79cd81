"""Where the time of a compiled step goes, by kind of operation, from a profile of JAX."""

import collections
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jax.profiler import ProfileData, ProfileEvent

# A fusion counts as the first of these in it: what it does besides is cheap beside it.
_HEAVY = (
  "convolution",
  "dot",
  "select-and-scatter",
  "reduce-window",
  "scatter",
  "gather",
  "reduce",
  "transpose",
  "copy",
)
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?[\]})] ([a-z][\w\-]*)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_OP_NAME = re.compile(r'op_name="([^"]+)"')


class OpCost(NamedTuple):
  """Time of the operations of one kind, in one step."""

  kind: str  # e.g. 'convolution, backward'
  milliseconds: float  # of the device; on CPUs, summed over threads
  share: float  # of all kinds
  calls: float


class KernelCost(NamedTuple):
  """Time of one of the program's instructions, in one step."""

  kernel: str  # its name on the device
  instruction: str  # of the compiled program; '' where the profile names none
  operation: str  # JAX's, with the functions around it
  milliseconds: float  # of the device; on CPUs, summed over threads
  share: float  # of all
  calls: float


class _Instruction(NamedTuple):
  opcode: str
  text: str


def costs_by_kind(folder: Path, hlo: str, steps: int) -> list[OpCost]:
  """Sums up the newest profile in a folder.

  Args:
    folder: given to `jax.profiler.trace`.
    hlo: text of the compiled program, whose instructions the profile names.
    steps: that were profiled.

  Returns:
    Dearest first. What no instruction accounts for has its kernel's name.
  """
  kinds = _kinds(hlo)
  nanoseconds, calls = collections.Counter(), collections.Counter()
  for event in _events(_newest(folder)):
    kind = kinds.get(dict(event.stats).get("hlo_op"), event.name)
    nanoseconds[kind] += event.duration_ns
    calls[kind] += 1
  total = sum(nanoseconds.values())
  return [
    OpCost(kind, spent / 1e6 / steps, spent / total, calls[kind] / steps)
    for kind, spent in nanoseconds.most_common()
  ]


def costs_by_kernel(folder: Path, hlo: str, steps: int) -> list[KernelCost]:
  """As `costs_by_kind`, one for each kernel of each instruction."""
  operations = _operations(hlo)
  nanoseconds, calls = collections.Counter(), collections.Counter()
  for event in _events(_newest(folder)):
    key = (event.name, dict(event.stats).get("hlo_op", ""))
    nanoseconds[key] += event.duration_ns
    calls[key] += 1
  total = sum(nanoseconds.values())
  return [
    KernelCost(
      kernel=kernel,
      instruction=instruction,
      operation=operations.get(instruction or kernel, ""),
      milliseconds=spent / 1e6 / steps,
      share=spent / total,
      calls=calls[kernel, instruction] / steps,
    )
    for (kernel, instruction), spent in nanoseconds.most_common()
  ]


def _newest(folder: Path) -> Path:
  return max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)


def _events(path: Path) -> Iterator[ProfileEvent]:
  """Yields what ran on the device; on CPUs, the operations of XLA among all else."""
  planes = list(ProfileData.from_file(str(path)).planes)
  devices = [plane for plane in planes if plane.name.startswith("/device:")]
  for plane in planes if not devices else ():
    for line in plane.lines:
      yield from (event for event in line.events if "hlo_op" in dict(event.stats))
  for plane in devices:
    lines = list(plane.lines)
    # A GPU's other lines repeat its streams' events by module, step, operation or name scope.
    streams = [line for line in lines if line.name.startswith("Stream")]
    for line in streams or [line for line in lines if line.name.startswith("XLA Ops")]:
      yield from line.events


def _kinds(hlo: str) -> dict[str, str]:
  """Returns {instruction: kind} of a program's text."""
  computations = _computations(hlo)
  return {
    name: _kind(instruction, computations)
    for instructions in computations.values()
    for name, instruction in instructions.items()
  }


def _operations(hlo: str) -> dict[str, str]:
  """Returns {instruction: JAX's name of it} of a program's text."""
  return {
    name: match[1]
    for instructions in _computations(hlo).values()
    for name, instruction in instructions.items()
    if (match := _OP_NAME.search(instruction.text))
  }


def _computations(hlo: str) -> dict[str, dict[str, _Instruction]]:
  computations, current = {}, {}
  for text in hlo.splitlines():
    if match := _COMPUTATION.match(text):
      current = computations[match[1]] = {}
    elif match := _INSTRUCTION.match(text):
      current[match[1]] = _Instruction(match[2], text)
  return computations


def _kind(instruction: _Instruction, computations: dict[str, dict[str, _Instruction]]) -> str:
  if match := _TARGET.search(instruction.text):
    return match[1] + _direction([instruction])
  called = _CALLED.search(instruction.text)
  inside = [instruction]
  if instruction.opcode in ("fusion", "call") and called:
    inside += computations.get(called[1], {}).values()
  opcodes = {part.opcode for part in inside}
  heaviest = next((opcode for opcode in _HEAVY if opcode in opcodes), None)
  if heaviest is None:
    heaviest = "elementwise" if instruction.opcode == "fusion" else instruction.opcode
  return heaviest + _direction(inside)


def _direction(instructions: list[_Instruction]) -> str:
  """Returns which pass instructions come from, as far as their names say."""
  names = [match[1] for part in instructions if (match := _OP_NAME.search(part.text))]
  if any("transpose(jvp" in name for name in names):
    return ", backward"
  return ", forward" if any("jvp(" in name for name in names) else ""
