"""The command `magnifier-jax`: one name for training, evaluation and the tools."""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple


class _Program(NamedTuple):
  """What a word of the command line runs."""

  module: str
  summary: str
  options: tuple[str, ...] = ()


PROGRAMS = {
  "train": _Program("magnifier_jax.main", "trains a run and evaluates it", ("--mode=train",)),
  "evaluate": _Program(
    "magnifier_jax.main", "evaluates a trained run, or saved embeddings", ("--mode=evaluate",)
  ),
  "check_data": _Program("magnifier_jax.tools.check_data", "finds what is wrong with a data set"),
  "prepared_data": _Program(
    "magnifier_jax.tools.prepared_data", "lists and removes prepared copies of data sets"
  ),
  "label_parts": _Program("magnifier_jax.tools.label_parts", "makes part labels"),
  "convert": _Program("magnifier_jax.tools.convert", "PyTorch and safetensors weights, in and out"),
  "export": _Program("magnifier_jax.tools.export", "writes a trained network as ONNX or StableHLO"),
  "compile_for": _Program(
    "magnifier_jax.tools.compile_for", "says what a run takes on TPUs or GPUs, without any"
  ),
  "compare": _Program("magnifier_jax.tools.compare", "puts runs beside the published numbers"),
  "ablate": _Program("magnifier_jax.tools.ablate", "trains variants and compares them"),
  "embed": _Program("magnifier_jax.tools.embed", "embeds images with a trained network"),
  "search": _Program("magnifier_jax.tools.search", "finds the nearest images of a gallery"),
}


def main(argv: Sequence[str]) -> int:
  """Runs the program that the first argument names, with the others; returns the exit code."""
  if not argv or argv[0] in ("-h", "--help", "help"):
    print(_usage())
    return 0 if argv else 2
  name, *arguments = argv
  if name not in PROGRAMS:
    print(f"error: {name}: no such command; choose from {', '.join(PROGRAMS)}", file=sys.stderr)
    return 2
  program = PROGRAMS[name]
  # As if the module had been started: absl and config_flags look at the process's arguments.
  sys.argv = [f"magnifier-jax {name}", *program.options, *arguments]
  importlib.import_module(program.module).cli()
  return 0


def _usage() -> str:
  lines = [f"  {name:<13} {program.summary}" for name, program in PROGRAMS.items()]
  return "\n".join(
    [
      "magnifier-jax COMMAND --config=configs/FILE.py[:VARIANT] [OPTIONS]",
      "",
      *lines,
      "",
      "A config is a file of yours, or configs/… of this package. Options of a command:",
      "magnifier-jax COMMAND --help",
    ]
  )


def cli() -> None:
  """Entry point."""
  sys.exit(main(sys.argv[1:]))
