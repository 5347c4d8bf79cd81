"""Training steps of the whole network, beside the PyTorch twin at its best.

  python -m benchmarks.train_step --batch=8,16
  python -m benchmarks.train_step --device=gpu --batch=64,128,256 --dtype=float32,bfloat16
  python -m benchmarks.train_step --device=gpu --batch=128 --dtype=bfloat16 --trace=DIR

A step is the forward pass, all losses, the gradient, and Adam with L2, on one batch of random
images that lies on the device already. Each side has a process of its own, which sleeps while it is
the other's turn; on a GPU the two share the card's memory. The twin runs in the fastest of
`--variants`, which is looked for at every batch size and dtype. bfloat16 is autocast there; float32
on a GPU is TF32 in matrix units on both sides, as JAX has it by default.
"""

from pathlib import Path

from benchmarks.command_line import create_parser, run, run_comparisons, works
from benchmarks.comparison import jax_worker
from benchmarks.reporting import Column, header, line
from benchmarks.side import IMAGES_PER_IDENTITY, Work
from magnifier_jax.devices.host_memory import restart_with_huge_pages

_TRACED_STEPS = {"cpu": 1, "gpu": 10}
_TRACE_LINES = 15
_COST_COLUMNS = (
  Column("ms", 9, ".2f"),
  Column("%", 5, ".1f"),
  Column("calls", 7, ".1f"),
  Column("kind", 40),
)


def main() -> None:
  """Measures, prints, and profiles where that is asked for."""
  parser = create_parser(__doc__, (8, 16), batch_fault)
  parser.add_argument("--trace", type=Path, help="folder for a profile of our side, also summed up")
  arguments = parser.parse_args()
  run_comparisons("train_step", arguments)
  if arguments.trace:
    for work in works("train_step", arguments):
      _trace(work, arguments.trace)


def batch_fault(batch_size: int) -> str | None:
  """Returns what is wrong with a batch size, or None."""
  if batch_size % IMAGES_PER_IDENTITY or batch_size == IMAGES_PER_IDENTITY:
    return (
      f"{batch_size}: a batch has {IMAGES_PER_IDENTITY} images of each of two people or more; "
      f"give a multiple of {IMAGES_PER_IDENTITY} from {2 * IMAGES_PER_IDENTITY}"
    )
  return None


def _trace(work: Work, folder: Path) -> None:
  folder = folder / f"batch{work.batch_size}_{work.dtype}"
  steps = _TRACED_STEPS[work.device]
  with jax_worker(work) as worker:
    worker.call("warm_up")
    costs = worker.call("trace", folder, steps)
  print(f"\nJAX, batch {work.batch_size}, {work.dtype}, one step by kind of operation; {folder}")
  print(header(_COST_COLUMNS))
  for cost in costs[:_TRACE_LINES]:
    values = (cost.milliseconds, 100 * cost.share, cost.calls, cost.kind)
    print(line(_COST_COLUMNS, values), flush=True)


if __name__ == "__main__":
  restart_with_huge_pages()  # for both sides, as users have it
  run(main)
