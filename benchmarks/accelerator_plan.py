"""What `benchmarks.accelerator` measures, in which order, and how long each part may take."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from benchmarks.side import Work

Kind = Literal["parity", "comparison", "profile", "memory", "variants"]
KINDS: tuple[Kind, ...] = ("parity", "comparison", "profile", "memory", "variants")
_TASKS = ("train_step", "embedding")
# Seconds: the most that a part gets, and what must be left for it to be started.
_LIMITS = {
  "parity": 120,
  "comparison": 170,
  "profile": 80,
  "memory": 120,
  "variants": 300,
}
_LEAST = {
  "parity": 30,
  "comparison": 45,
  "profile": 20,
  "memory": 30,
  "variants": 60,
}
# Left out unless it is asked for: it is worth less than the whole of the comparisons.
EXTRA: tuple[Kind, ...] = ("variants",)


class Part(NamedTuple):
  """One measurement, in a process of its own."""

  kind: Kind
  work: Work | None  # None: the fixture of the golden numbers

  @property
  def name(self) -> str:
    """For people, and unlike that of all other parts."""
    if self.work is None:
      return self.kind
    what = "" if self.kind == "comparison" else f"{self.kind} of "
    return f"{what}{self.work.task}, {self.work.dtype}, batch {self.work.batch_size}"

  @property
  def limit(self) -> int:
    """The most seconds that it gets."""
    return _LIMITS[self.kind]

  @property
  def least(self) -> int:
    """Seconds without which it is not worth a start."""
    return _LEAST[self.kind]


def plan(
  kinds: Sequence[Kind], work: Work, dtypes: Sequence[str], batches: Sequence[int]
) -> list[Part]:
  """Returns the parts, the most important first.

  Agreement with the authors' numbers comes before speed; then the step and the embedding of the
  first dtype at the first batch size, and from there outwards: the dtypes and sizes that are
  given first count most. Profile and memory are of the first of them, which is compiled by then.

  Args:
    kinds: which to measure.
    work: what the comparisons have in common.
    dtypes: of the comparisons.
    batches: images of the comparisons.
  """
  cells = sorted(
    (d + b, task, d, work._replace(task=name, dtype=dtype, batch_size=batch))
    for d, dtype in enumerate(dtypes)
    for b, batch in enumerate(batches)
    for task, name in enumerate(_TASKS)
  )
  [step, embedding, *others] = [Part("comparison", cell) for *_, cell in cells]
  first = step.work
  ordered = [
    Part("parity", None),
    step,
    Part("profile", first),
    embedding,
    Part("memory", first),
    *others,
    Part("variants", first),
  ]
  return [part for part in ordered if part.kind in kinds]
