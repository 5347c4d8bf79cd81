"""What a compiled program costs, as far as its text tells."""

import collections
import re
from collections.abc import Iterator
from typing import NamedTuple

from magnifier_jax.compilers.hlo_text import Computation, Instruction, Module, SourceLine

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CHANNEL = re.compile(r"channel_id=(\d+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CUSTOM_CALL = re.compile(r'custom_call_target="([^"]+)"')
_COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "ragged-all-to-all",
  "collective-permute",
  "collective-broadcast",
)
# These cost nothing of their own: names for data, control flow, the ends of what runs beside.
_FREE = {
  "parameter",
  "constant",
  "get-tuple-element",
  "tuple",
  "bitcast",
  "while",
  "call",
  "conditional",
  "after-all",
  "partition-id",
  "replica-id",
  "iota",
  "opt-barrier",
  "add-dependency",
}
_ALLOCATES = "AllocateBuffer"


class Collective(NamedTuple):
  """The collectives of one kind."""

  kind: str  # as 'all-reduce'
  count: int
  bytes: int  # that a device gives or gets, whichever is more, of all of them
  bytes_by_dtype: dict[str, int]


class Cost(NamedTuple):
  """What one instruction costs in a run of the program."""

  instruction: Instruction
  amount: int  # cycles, or bytes moved
  times: int  # that it runs; `amount` is of all of them
  source: tuple[SourceLine, ...]

  @property
  def op_name(self) -> str:
    """The operation in JAX's words, with the functions around it."""
    match = _OP_NAME.search(self.instruction.attributes)
    return match[1] if match else ""


def cycle_costs(module: Module) -> list[Cost]:
  """Returns the cycles that a TPU's compiler expects of each instruction; the dearest first."""
  found = []
  for instruction, times in executed(module):
    if match := _CYCLES.search(instruction.attributes):
      cycles = times * int(match[1])
      found.append(Cost(instruction, cycles, times, module.source(instruction)))
  return sorted(found, key=lambda cost: -cost.amount)


def without_estimate(module: Module) -> dict[str, int]:
  """Returns what a TPU's compiler gives no cycles for: {opcode: how often it runs}."""
  counts: collections.Counter[str] = collections.Counter()
  for instruction, times in executed(module):
    is_scalar = not any(array.shape for array in instruction.result)
    if _works(instruction) and not is_scalar and not _CYCLES.search(instruction.attributes):
      counts[instruction.opcode.removesuffix("-start")] += times
  return dict(counts.most_common())


def traffic_costs(module: Module) -> list[Cost]:
  """Returns the bytes that each kernel of a GPU reads and writes; the dearest first.

  A kernel reads all of its operands and writes all of its results, as if none of them stayed in a
  cache.
  """
  found = []
  for computation, times in executed_computations(module):
    for instruction in computation.values():
      if _works(instruction) and _collective_kind(instruction) is None:
        read = sum(
          computation[name].result_bytes for name in instruction.operands if name in computation
        )
        moved = times * (read + instruction.result_bytes)
        found.append(Cost(instruction, moved, times, module.source(instruction)))
  return sorted(found, key=lambda cost: -cost.amount)


def collectives(module: Module) -> list[Collective]:
  """Returns the collectives by kind.

  To run one beside other work a compiler makes copies of it, which share a channel and count once.
  """
  by_kind: dict[str, dict[str, dict[str, int]]] = collections.defaultdict(dict)
  for computation in module.computations.values():
    for instruction in computation.values():
      if kind := _collective_kind(instruction):
        channel = _CHANNEL.search(instruction.attributes)
        key = channel[1] if channel else instruction.name
        by_kind[kind][key] = _payload(instruction, computation)
  found = []
  for kind, channels in sorted(by_kind.items()):
    by_dtype: collections.Counter[str] = collections.Counter()
    for payload in channels.values():
      by_dtype.update(payload)
    found.append(Collective(kind, len(channels), by_dtype.total(), dict(by_dtype)))
  return found


def executed(module: Module) -> Iterator[tuple[Instruction, int]]:
  """Yields each instruction that runs by itself, and how often; not those inside a fusion."""
  for computation, times in executed_computations(module):
    for instruction in computation.values():
      yield instruction, times


def executed_computations(module: Module) -> Iterator[tuple[Computation, int]]:
  """Yields the entry, the bodies of loops and what is called, and how often each runs.

  All branches of a conditional count, and a loop of unknown length counts as one turn.
  """
  waiting = [(module.entry, 1)]
  while waiting:
    name, times = waiting.pop()
    computation = module.computations[name]
    yield computation, times
    for instruction in computation.values():
      if instruction.opcode == "while":
        trips = _trips(instruction, module)
        waiting += [(instruction.called(part), times * trips) for part in ("condition", "body")]
      elif instruction.opcode == "call":
        waiting.append((instruction.called("to_apply"), times))
      elif instruction.opcode == "conditional":
        waiting += [(branch, times) for branch in _branches(instruction)]


def _works(instruction: Instruction) -> bool:
  target = _CUSTOM_CALL.search(instruction.attributes)
  return not (
    instruction.opcode in _FREE
    or instruction.opcode.endswith("-done")
    or (target and target[1] == _ALLOCATES)
  )


def _collective_kind(instruction: Instruction) -> str | None:
  kind = instruction.opcode.removesuffix("-start")
  return kind if kind in _COLLECTIVES else None


def _payload(instruction: Instruction, computation: Computation) -> dict[str, int]:
  """Returns {dtype: bytes} of a collective's operands or results, whichever are more."""
  given = _by_dtype(
    array
    for name in instruction.operands
    if name in computation
    for array in computation[name].result
  )
  got = _by_dtype(instruction.result)
  if instruction.opcode in ("all-gather-start", "collective-permute-start"):
    got = {dtype: size - given.get(dtype, 0) for dtype, size in got.items()}  # holds both
  return max(given, got, key=lambda sizes: sum(sizes.values()))


def _by_dtype(arrays: Iterator) -> dict[str, int]:
  sizes: collections.Counter[str] = collections.Counter()
  for array in arrays:
    sizes[array.dtype] += array.bytes
  return dict(sizes)


def _trips(loop: Instruction, module: Module) -> int:
  """Returns how often a loop turns; of JAX's scan, which counts from 0, its condition tells."""
  if match := _KNOWN_TRIPS.search(loop.attributes):
    return int(match[1])
  condition = module.computations[loop.called("condition")]
  limits = [
    int(instruction.arguments)
    for instruction in condition.values()
    if instruction.opcode == "constant" and instruction.arguments.isdecimal()
  ]
  return limits[0] if len(limits) == 1 else 1


def _branches(instruction: Instruction) -> list[str]:
  match = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
  if match:
    return re.findall(r"%([\w.\-]+)", match[1])
  return [instruction.called("true_computation"), instruction.called("false_computation")]
