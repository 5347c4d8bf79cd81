"""Arguments, table and JSON of the benchmarks that compare our network with the PyTorch twin."""

import argparse
import importlib.util
import os
import shutil
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.comparison import (
  ALL_VARIANTS,
  VARIANTS,
  Probe,
  SideComparison,
  SideResult,
  compare,
)
from benchmarks.reporting import Column, header, line, machine, write_json
from benchmarks.side import Work
from benchmarks.worker import SideError
from magnifier_jax.config import ModelConfig
from magnifier_jax.errors import UserError

BACKBONES = typing.get_args(typing.get_type_hints(ModelConfig)["backbone"])
DTYPES = ("float32", "bfloat16")
_COLUMNS = (
  Column("batch", 5, "d"),
  Column("dtype", 8),
  Column("side", 7),
  Column("variant", 20),
  Column("ms", 9, ".1f"),
  Column("img/s", 8, ".2f"),
  Column("CPU ms", 9, ".1f"),
  Column("% of rate", 9, ".1f"),
  Column("peak MB", 8, ".0f"),
  Column("whole MB", 8, ".0f"),
  Column("× PyTorch", 9, ".3f"),
  Column("in rounds", 11),
)
_LEGEND = """
ms, CPU ms: a step by the clock, and of all threads. % of rate: the operations that the network
needs, against the faster side's rate in a large matrix product. peak MB: since the first step;
whole MB: compilation included. × PyTorch: the ratio of the medians; its least and largest
in one round."""


def create_parser(
  description: str, batch_sizes: Sequence[int], check_batch: Callable[[int], str | None]
) -> argparse.ArgumentParser:
  """Returns a parser of the options that both benchmarks have.

  Args:
    description: help text.
    batch_sizes: default.
    check_batch: returns what is wrong with a batch size, or None.
  """
  parser = argparse.ArgumentParser(
    description=description, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  batches = list_of(positive, check_batch)
  parser.add_argument("--batch", type=batches, default=batch_sizes, help="sizes, with commas")
  parser.add_argument(
    "--size", type=size_argument, default=(384, 192), help="height,width in pixels"
  )
  parser.add_argument("--backbone", choices=BACKBONES, default="resnet50")
  parser.add_argument("--dtype", type=list_of(one_of(DTYPES)), default=["float32"])
  parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
  parser.add_argument("--rounds", type=positive, default=7, help="turns of each side")
  parser.add_argument(
    "--variants",
    type=list_of(one_of(ALL_VARIANTS)),
    default=list(VARIANTS),
    help="of the twin, of which the fastest is taken; all: " + ", ".join(ALL_VARIANTS),
  )
  parser.add_argument("--json", type=Path, help="also write everything here")
  return parser


def run(main: Callable[[], None]) -> None:
  """Runs a benchmark; what goes wrong is told without a traceback of this process."""
  try:
    main()
  except (UserError, SideError) as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    sys.exit(130)


def require_torch() -> None:
  """Raises `UserError` when PyTorch is not installed."""
  if importlib.util.find_spec("torch") is None:
    raise UserError("PyTorch, the other side, is not installed; pip install 'torch>=2.6'")


def works(task: str, arguments: argparse.Namespace) -> list[Work]:
  """Returns what is asked for, one work for each dtype and batch size."""
  return [
    Work(task, arguments.device, batch, arguments.size, arguments.backbone, dtype)
    for dtype in arguments.dtype
    for batch in arguments.batch
  ]


def run_comparisons(task: str, arguments: argparse.Namespace) -> None:
  """Measures all that is asked for, prints it, and writes it down.

  Raises:
    UserError: when PyTorch, a compiler or a device is missing.
    SideError: when a side fails.
  """
  require_torch()
  variants = available_variants(arguments.variants, arguments.device)
  here = machine("jax", "flax", "torch")
  print(", ".join(f"{name} {value}" for name, value in here.items()), flush=True)
  comparisons = []
  for work in works(task, arguments):
    comparisons.append(compare(work, variants, arguments.rounds, say_probe))
    _print_comparison(comparisons[-1])
  print(_LEGEND)
  if arguments.json:
    records = [comparison_record(comparison) for comparison in comparisons]
    write_json(arguments.json, {"machine": here, "comparisons": records})


def comparison_record(comparison: SideComparison) -> dict[str, Any]:
  """Returns what goes into the JSON."""
  return comparison._asdict() | {
    "work": comparison.work._asdict(),
    "probes": [probe._asdict() for probe in comparison.probes],
    "ratio": comparison.ratio,
    "ratio_spread": comparison.ratio_spread,
    "jax": side_record(comparison.jax, comparison.work),
    "pytorch": side_record(comparison.pytorch, comparison.work),
  }


def side_record(side: SideResult, work: Work) -> dict[str, Any]:
  """Returns what goes into the JSON of one side."""
  return side._asdict() | {
    "laps": [lap._asdict() for lap in side.laps],
    "peaks": side.peaks._asdict(),
    "seconds": side.seconds,
    "cpu_seconds": side.cpu_seconds,
    "images_per_second": work.batch_size / side.seconds,
  }


def table_lines(comparison: SideComparison) -> list[str]:
  """Returns the header, and a line for each side."""
  rate = max(comparison.jax.matrix_product_rate, comparison.pytorch.matrix_product_rate)
  low, high = comparison.ratio_spread
  lines = [header(_COLUMNS)]
  for name, variant, side, ratio, spread in (
    ("JAX", "", comparison.jax, comparison.ratio, f"{low:.3f}–{high:.3f}"),
    ("PyTorch", comparison.variant, comparison.pytorch, 1.0, ""),
  ):
    values = (
      comparison.work.batch_size,
      comparison.work.dtype,
      name,
      variant,
      1e3 * side.seconds,
      comparison.work.batch_size / side.seconds,
      1e3 * side.cpu_seconds,
      100 * comparison.operations / side.seconds / rate,
      side.peaks.steps,
      side.peaks.whole,
      ratio,
      spread,
    )
    lines.append(line(_COLUMNS, values))
  return lines


def _print_comparison(comparison: SideComparison) -> None:
  print(*table_lines(comparison), sep="\n")
  for name, side in (("JAX", comparison.jax), ("PyTorch", comparison.pytorch)):
    print(f"{name}'s matrix product: {side.matrix_product_rate / 1e9:.1f} GFLOP/s", end="; ")
    print(f"CPU while the other side had its turns: {side.idle_cpu_seconds:.2f} s")
  print(f"a step needs {comparison.operations / 1e9:.1f} GFLOP", end="; ")
  print(f"{comparison.steps_per_turn} in a turn", flush=True)


def say_probe(probe: Probe) -> None:
  """Prints what a variant of the twin was measured at."""
  if probe.seconds is None:
    said = "failed: " + (probe.error.strip().splitlines() or [""])[-1]
  else:
    said = f"{1e3 * probe.seconds:.1f} ms"
  print(f"PyTorch, {probe.variant}: {said}", flush=True)


def available_variants(variants: Sequence[str], device: str) -> list[str]:
  """Leaves out what cannot be compiled here."""
  compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
  if device == "gpu" or shutil.which(compiler):
    return list(variants)
  eager = [variant for variant in variants if "+" not in variant]
  if not eager:
    raise UserError(f"torch.compile needs a C++ compiler; install {compiler}, or set CXX")
  if len(eager) < len(variants):
    print(f"torch.compile is left out: there is no C++ compiler ({compiler}, or CXX) here")
  return eager


def list_of(
  convert: Callable[[str], Any], check: Callable[[Any], str | None] = lambda value: None
) -> Callable[[str], list[Any]]:
  """Returns an argument type: values separated by commas; `check` says what is wrong with one."""

  def convert_list(text: str) -> list[Any]:
    values = [convert(part) for part in text.split(",")]
    for value in values:
      if fault := check(value):
        raise argparse.ArgumentTypeError(fault)
    return values

  return convert_list


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
  """Returns an argument type: one of the choices."""

  def convert(text: str) -> str:
    if text not in choices:
      raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (from {', '.join(choices)})")
    return text

  return convert


def positive(text: str) -> int:
  """Argument type: a positive whole number."""
  if not text.isdecimal() or int(text) == 0:
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
  return int(text)


def size_argument(text: str) -> tuple[int, int]:
  """Argument type: height,width in pixels, multiples of 32."""
  sizes = tuple(positive(part) for part in text.split(","))
  if len(sizes) != 2 or any(size % 32 for size in sizes):
    raise argparse.ArgumentTypeError(f"{text!r} is not height,width in multiples of 32")
  return sizes
