"""From image files to vectors: `network.stream` beside the network alone, and beside PyTorch.

  python -m benchmarks.embed_files --backbone=resnet50 --batch=16,64
  python -m benchmarks.embed_files --backbone=resnet18 --size=96,32 --images_per_turn=4096

Ours has three turns in each round: the network on a batch that lies ready, the whole way from JPEG
files, and with it into a gallery, as `tools.embed` does. The PyTorch twin goes the whole way with
the same images, in the fastest of `--variants` and then of `--loading`: threads in its process, or
a DataLoader with so many worker processes.
Weights are random, and files are drawn, 256 × 110 pixels. A turn begins with nothing loaded.
Each side has a process of its own, and the page cache holds the files.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.command_line import (
  available_variants,
  create_parser,
  list_of,
  one_of,
  positive,
  require_torch,
  run,
  say_probe,
  works,
)
from benchmarks.comparison import (
  SETTLE_SECONDS,
  fastest,
  file_workers,
  probe_variants,
)
from benchmarks.drawn_files import draw_files
from benchmarks.reporting import Column, header, line, machine, write_json
from benchmarks.side import Lap, Work
from benchmarks.worker import Worker
from magnifier_jax.devices.host_memory import restart_with_huge_pages

_LOADING = ("threads", "1", "2", "4")
_FILES = 4096
_COLUMNS = (
  Column("batch", 5, "d"),
  Column("", 20),
  Column("", 30),
  Column("img/s", 9, ".2f"),
  Column("CPU ms", 9, ".3f"),
  Column("% of network", 12, ".1f"),
  Column("× PyTorch", 9, ".3f"),
  Column("in rounds", 11),
)


class Turn(NamedTuple):
  """What takes turns.

  Attributes:
    name: for the table.
    how: variant of it.
    worker: process that it runs in.
    method: of the side there.
  """

  name: str
  how: str
  worker: Worker
  method: str


def main() -> None:
  """Measures and prints."""
  parser = create_parser(__doc__, (64,), lambda batch_size: None)
  parser.add_argument("--images_per_turn", type=positive, default=256, metavar="N")
  parser.add_argument(
    "--loading",
    type=list_of(one_of(_LOADING)),
    default=list(_LOADING[:3]),
    help="of the twin, of which the fastest is taken: " + ", ".join(_LOADING),
  )
  arguments = parser.parse_args()
  require_torch()
  variants = available_variants(arguments.variants, arguments.device)
  here = machine("jax", "torch", "pillow")
  print(", ".join(f"{name} {value}" for name, value in here.items()), flush=True)
  records = []
  with tempfile.TemporaryDirectory() as folder:
    files = draw_files(Path(folder), _FILES)
    for work in works("embedding", arguments):
      batches = math.ceil(arguments.images_per_turn / work.batch_size)
      records.append(_measure(work, files, variants, arguments.loading, arguments.rounds, batches))
  if arguments.json:
    write_json(arguments.json, {"machine": here, "measured": records})


def _measure(
  work: Work,
  files: Sequence[str],
  variants: Sequence[str],
  loading: Sequence[str],
  rounds: int,
  batches: int,
) -> dict[str, Any]:
  """Measures one network at one batch size, and prints a table."""
  probes = probe_variants(work, variants, say_probe) if len(variants) > 1 else []
  variant = fastest(probes) if probes else variants[0]
  ours, theirs = file_workers(work, files, variant)
  with ours, theirs:
    for worker in (ours, theirs):
      worker.call("warm_up")
    probed = {way: _probe(theirs, way, batches) for way in loading}
    best = min(probed, key=probed.get)
    theirs.call("load_by", best)
    turns = (
      Turn("the network alone", "", ours, "bare_lap"),
      Turn("from files", "", ours, "lap"),
      Turn("tools.embed", "", ours, "gallery_lap"),
      Turn("PyTorch, from files", f"{variant}, {best}", theirs, "lap"),
    )
    laps = take_turns(turns, rounds, batches)
  _print(work, turns, laps)
  return {
    "work": work._asdict(),
    "batches": batches,
    "loading": {way: work.batch_size / seconds for way, seconds in probed.items()},
    "turns": {
      turn.name: {"how": turn.how, "laps": [lap._asdict() for lap in own]}
      for turn, own in zip(turns, laps)
    },
  }


def _probe(worker: Worker, way: str, batches: int) -> float:
  """Returns the seconds of a batch with one way of loading; the first lap starts processes."""
  worker.call("load_by", way)
  worker.call("lap", 1)
  seconds = worker.call("lap", batches).seconds
  print(f"PyTorch, loading by {way}: {1e3 * seconds:.1f} ms a batch", flush=True)
  return seconds


def take_turns(turns: Sequence[Turn], rounds: int, batches: int) -> list[list[Lap]]:
  """Gives each a turn a round, in an order that is reversed from round to round.

  The batch before a turn is not counted: the caches are the other side's.
  """
  laps: list[list[Lap]] = [[] for _ in turns]
  for number in range(rounds):
    order = range(len(turns)) if number % 2 == 0 else reversed(range(len(turns)))
    for index in order:
      time.sleep(SETTLE_SECONDS)
      turn = turns[index]
      turn.worker.call(turn.method, 1)
      laps[index].append(turn.worker.call(turn.method, batches))
  return laps


def _print(work: Work, turns: Sequence[Turn], laps: Sequence[Sequence[Lap]]) -> None:
  medians = [statistics.median(lap.seconds for lap in own) for own in laps]
  print(header(_COLUMNS))
  for turn, own, seconds in zip(turns, laps, medians):
    ratios = [theirs.seconds / lap.seconds for lap, theirs in zip(own, laps[-1])]
    is_ours = turn.worker is not turns[-1].worker
    # A DataLoader's worker processes are not among the twin's threads.
    cpu = statistics.median(lap.cpu_seconds for lap in own) / work.batch_size if is_ours else None
    values = (
      work.batch_size,
      turn.name,
      turn.how,
      work.batch_size / seconds,
      None if cpu is None else 1e3 * cpu,
      100 * medians[0] / seconds,
      medians[-1] / seconds,
      f"{min(ratios):.3f}–{max(ratios):.3f}",
    )
    print(line(_COLUMNS, values), flush=True)


if __name__ == "__main__":
  restart_with_huge_pages()  # for both sides, as users have it
  run(main)
