"""How the cost of a training step grows with the batch, the image and the devices. Our side only.

  python -m benchmarks.growth
  python -m benchmarks.growth --device=gpu --batch=64,128,256 --devices=1,2,4,8 --dtype=bfloat16

Each row is a process of its own, and the rows of a group take turns. Batches have the last of
`--sizes`; sizes and devices have the first of `--batch` on each device. A device of a CPU is a core
where devices are counted, and all cores elsewhere.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.command_line import DTYPES, list_of, one_of, positive, run, size_argument
from benchmarks.comparison import SideResult, alternate, jax_worker
from benchmarks.reporting import Column, header, line, machine, num_cores, write_json
from benchmarks.side import Work
from benchmarks.train_step import batch_fault
from magnifier_jax.devices.host_memory import restart_with_huge_pages
from magnifier_jax.errors import UserError

_SIZES = ((128, 64), (256, 128), (384, 192))
_COLUMNS = (
  Column("grows", 8),
  Column("batch", 5, "d"),
  Column("size", 8),
  Column("devices", 7, "d"),
  Column("ms", 9, ".1f"),
  Column("img/s", 8, ".2f"),
  Column("ns/pixel", 9, ".1f"),
  Column("CPU ms", 9, ".1f"),
  Column("peak MB", 8, ".0f"),
)


class Row(NamedTuple):
  """What is measured."""

  grows: str  # 'batch', 'size' or 'devices'
  work: Work
  devices: int
  cores: int | None  # that the process keeps to; None has all


def main() -> None:
  """Measures, prints a table, and writes JSON if asked to."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--batch", type=list_of(positive, batch_fault), default=[8, 16, 32])
  parser.add_argument(
    "--sizes", type=size_argument, nargs="+", default=_SIZES, help="height,width in pixels"
  )
  parser.add_argument("--devices", type=list_of(positive), default=[1, 2])
  parser.add_argument("--dtype", type=one_of(DTYPES), default="float32")
  parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
  parser.add_argument("--rounds", type=positive, default=3)
  parser.add_argument("--json", type=Path)
  arguments = parser.parse_args()
  if arguments.device == "cpu" and max(arguments.devices) > num_cores():
    raise UserError(f"--devices: this CPU has {num_cores()} cores, and a device takes one")
  here = machine("jax", "flax")
  print(", ".join(f"{name} {value}" for name, value in here.items()))
  print(header(_COLUMNS), flush=True)
  records = []
  for grows in ("batch", "size", "devices"):
    rows = [row for row in _rows(arguments) if row.grows == grows]
    for row, result in zip(rows, _measure(rows, arguments.rounds)):
      records.append(_record(row, result))
      print(line(_COLUMNS, [records[-1][column.title] for column in _COLUMNS]), flush=True)
  if arguments.json:
    write_json(arguments.json, {"machine": here, "rows": records})


def _rows(arguments: argparse.Namespace) -> list[Row]:
  def work(batch_size: int, size: tuple[int, int]) -> Work:
    return Work("train_step", arguments.device, batch_size, size, "resnet50", arguments.dtype)

  least, largest = arguments.batch[0], arguments.sizes[-1]
  pinned = arguments.device == "cpu"
  return [
    *(Row("batch", work(batch, largest), 1, None) for batch in arguments.batch),
    *(Row("size", work(least, size), 1, None) for size in arguments.sizes),
    *(
      Row("devices", work(least * count, largest), count, count if pinned else None)
      for count in arguments.devices
    ),
  ]


def _measure(rows: Sequence[Row], rounds: int) -> list[SideResult]:
  sides = [jax_worker(row.work, row.devices, row.cores) for row in rows]
  try:
    for side in sides:
      side.call("warm_up")
    return alternate(sides, rounds, 1)
  finally:
    for side in sides:
      side.close()


def _record(row: Row, result: SideResult) -> dict[str, str | int | float | None]:
  height, width = row.work.image_size_hw
  return {
    "grows": row.grows,
    "batch": row.work.batch_size,
    "size": f"{height}×{width}",
    "devices": row.devices,
    "ms": 1e3 * result.seconds,
    "img/s": row.work.batch_size / result.seconds,
    "ns/pixel": 1e9 * result.seconds / (row.work.batch_size * height * width),
    "CPU ms": 1e3 * result.cpu_seconds,
    "peak MB": result.peaks.steps or result.peaks.whole,
  }


if __name__ == "__main__":
  restart_with_huge_pages()  # as users have it
  run(main)
