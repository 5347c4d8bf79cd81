r"""Exports a trained network: files that run without this package, in trackers, OpenCV, TensorRT.

  python -m magnifier_jax.tools.export --network=runs/cuhk03 --output=exported/cuhk03
  python -m magnifier_jax.tools.export --network=runs/cuhk03 --output=exported/cuhk03 \
    --format=onnx,stablehlo --branches=global --input=uint8

The folder gets model.onnx (opset 17) or model.stablehlo (for CPUs, NVIDIA's GPUs and TPUs),
model.json and a model card, README.md. Each file is run beside the network before it is kept. Exit
code 0: written. 1: a file gives other embeddings than the network; nothing was written. 2: the
command is wrong, or something is missing. Needs pip install 'magnifier-jax[onnx]'.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import logging

from magnifier_jax.export.layout import NETWORK_FILES
from magnifier_jax.export.packages import ExportError
from magnifier_jax.export.signature import INPUTS
from magnifier_jax.files.user_path import user_path
from magnifier_jax.tools.program import add_checkpoint, make_parser, run_tool

if TYPE_CHECKING:
  from magnifier_jax.export.gate import NearTie


def main(argv: Sequence[str]) -> int | str:
  """Exports as the arguments say; returns what was written, or the exit code 1."""
  options = _parser().parse_args(argv)
  formats = _list("--format", options.format)
  unknown = [name for name in formats if name not in NETWORK_FILES]
  if unknown:
    raise ExportError(
      f"--format: no format is called {unknown[0]!r}; choose from {', '.join(NETWORK_FILES)}"
    )
  # Not above: JAX and TFDS take seconds, and --help needs neither.
  from magnifier_jax.export.exporting import ExportOptions, export_network
  from magnifier_jax.export.gate import ParityError
  from magnifier_jax.workdir.metrics_log import say

  wanted = ExportOptions(
    formats=formats,
    branches=_list("--branches", options.branches) if options.branches else (),
    input=options.input,
    checkpoint=options.checkpoint,
    overwrite=options.overwrite,
  )
  try:
    exported = export_network(options.network, options.output, wanted, say)
  except ParityError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  lines = [f"written: {exported.folder}"]
  for name, parity in exported.parity.items():
    found = ", ".join(f"{branch} {value:.1e}" for branch, value in parity.differences.items())
    lines.append(f"  {name}: largest difference to the network, relative: {found}")
    lines += [_tie_line(tie, tie.image in parity.left_out) for tie in parity.near_ties]
  return "\n".join(lines)


def _tie_line(tie: "NearTie", left_out: bool) -> str:
  return (
    f"    image {tie.image}, row {tie.row}, column {tie.column}: {tie.parts[0]} and {tie.parts[1]} "
    f"are equally likely{'; the image was not compared' * left_out}"
  )


def _list(option: str, text: str) -> tuple[str, ...]:
  """Returns the names of a list with commas, each once."""
  names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
  if not all(names):
    raise ExportError(f"{option}: {text!r} has an empty name in it")
  return names


def _parser() -> argparse.ArgumentParser:
  parser = make_parser("export", __doc__)
  add = parser.add_argument
  path = {"type": user_path, "required": True, "metavar": "PATH"}
  add("--network", **path, help="the workdir of a trained run")
  add("--output", **path, help="folder to write; it must not be there, or be empty")
  add(
    "--format",
    default="onnx",
    metavar="NAME[,NAME]",
    help=f"of {', '.join(NETWORK_FILES)} (%(default)s)",
  )
  add(
    "--branches", default="", metavar="NAME[,NAME…]", help="some branches alone (all that it has)"
  )
  add(
    "--input",
    choices=INPUTS,
    default=INPUTS[0],
    help="float32: NCHW, normalised outside; uint8: NHWC pixels (%(default)s)",
  )
  add_checkpoint(parser)
  add("--overwrite", action="store_true", help="replace a folder that was exported before")
  return parser


def cli() -> None:
  """Entry point."""
  logging.set_verbosity(logging.ERROR)
  run_tool(main)


if __name__ == "__main__":
  cli()
