"""Reads the text of a compiled program: computations, instructions, and where they come from."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_CLOSING = {"(": ")", "{": "}"}
_TABLE_ENTRY = re.compile(r"^(\d+) (?:\"(.*)\"|\{(.*)\})$")
_FIELD = re.compile(r"(\w+)=(\d+)")


class Array(NamedTuple):
  """An array of a program."""

  dtype: str  # as 'bf16'
  shape: tuple[int, ...]

  @property
  def bytes(self) -> int:
    """Its size, without padding."""
    return math.prod(self.shape) * bits_of(self.dtype) // 8

  def __str__(self) -> str:
    return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Instruction(NamedTuple):
  """One instruction of a computation."""

  name: str
  opcode: str  # as 'fusion', 'all-reduce-start'
  result: tuple[Array, ...]  # more than one: a tuple
  operands: tuple[str, ...]  # names of instructions of the same computation
  arguments: str  # the operands as they are written; of a constant, its value
  attributes: str  # all that follows them

  @property
  def result_bytes(self) -> int:
    """Size of the result, without padding."""
    return sum(array.bytes for array in self.result)

  def called(self, attribute: str) -> str | None:
    """Returns the computation that an attribute, such as `body`, names."""
    match = re.search(rf"\b{attribute}=%([\w.\-]+)", self.attributes)
    return match and match[1]


Computation = Mapping[str, Instruction]


class SourceLine(NamedTuple):
  """A place in Python code."""

  file: str
  line: int


class Module(NamedTuple):
  """A compiled program."""

  entry: str
  computations: Mapping[str, Computation]
  frames: Mapping[int, tuple[SourceLine, ...]]  # stack frame id → lines, the innermost first

  def instructions(self) -> Iterator[Instruction]:
    """Yields every instruction once, whether or not and however often it runs."""
    for computation in self.computations.values():
      yield from computation.values()

  def source(self, instruction: Instruction) -> tuple[SourceLine, ...]:
    """Returns the Python lines that an instruction comes from, the innermost first."""
    match = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
    return self.frames.get(int(match[1]), ()) if match else ()


def parse(text: str) -> Module:
  """Reads what `jax.stages.Compiled.as_text` returns.

  Args:
    text: of a scheduled module, after optimisation.

  Raises:
    ValueError: when it has no entry computation.
  """
  entry, computations, current = None, {}, {}
  for line in text.splitlines():
    if match := _COMPUTATION.match(line):
      current = computations[match[2]] = {}
      entry = match[2] if match[1] else entry
    elif match := _INSTRUCTION.match(line):
      current[match[1]] = _instruction(match[1], match[2])
  if entry is None:
    raise ValueError("the text has no entry computation")
  return Module(entry, computations, _frames(text))


def bits_of(dtype: str) -> int:
  """Returns the bits of a number, as 16 of 'bf16'; 0 of a token, which is no number."""
  if dtype == "pred":
    return 8
  match = re.match(r"[a-z]+(\d+)", dtype)
  return int(match[1]) if match else 0


def arrays_of(shape: str) -> tuple[Array, ...]:
  """Returns the arrays of a shape, as '(f32[8,128]{1,0}, s32[])'."""
  without_comments = re.sub(r"/\*.*?\*/", "", shape)
  return tuple(
    Array(dtype, tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size))
    for dtype, sizes in _ARRAY.findall(without_comments)
  )


def _instruction(name: str, text: str) -> Instruction:
  end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
  shape, rest = text[:end], text[end:].lstrip()
  opening = rest.index("(")
  closing = _closing(rest, opening)
  return Instruction(
    name,
    rest[:opening],
    arrays_of(shape),
    tuple(_NAME.findall(rest[opening:closing])),
    rest[opening + 1 : closing],
    rest[closing + 1 :],
  )


def _closing(text: str, opening: int) -> int:
  """Returns where the bracket at `opening` is closed."""
  depth = 0
  for i in range(opening, len(text)):
    if text[i] in _CLOSING:
      depth += 1
    elif text[i] in _CLOSING.values():
      depth -= 1
      if depth == 0:
        return i
  return len(text)


def _frames(text: str) -> dict[int, tuple[SourceLine, ...]]:
  files = _table(text, "FileNames")
  locations = {
    i: SourceLine(files.get(fields["file_name_id"], ""), fields["line"])
    for i, fields in _table(text, "FileLocations").items()
  }
  frames: dict[int, tuple[SourceLine, ...]] = {}
  for i, fields in _table(text, "StackFrames").items():
    # Frames count from 1, and a parent of 1 is none.
    outer = frames.get(fields.get("parent_frame_id", 1) - 1, ())
    frames[i] = (locations[fields["file_location_id"]], *outer)
  return frames


def _table(text: str, name: str) -> dict:
  """Returns a table from the head of a program: number → its text or its {field: number}."""
  start = text.find(f"\n{name}\n")
  table = {}
  for line in text[start + len(name) + 2 :].splitlines() if start >= 0 else ():
    match = _TABLE_ENTRY.match(line)
    if not match:
      break
    fields = {key: int(value) for key, value in _FIELD.findall(match[3] or "")}
    table[int(match[1])] = fields if match[2] is None else match[2]
  return table
