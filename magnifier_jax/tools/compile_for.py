r"""Compiles a run's programs for TPUs or GPUs that are not there, and says what they take.

  python -m magnifier_jax.tools.compile_for --target=v5e:2x4 --config=configs/cuhk03.py \
    --config.dtype=bfloat16
  python -m magnifier_jax.tools.compile_for --target=h100:8 --config=configs/cuhk03.py --fit

Works on any machine, reads no data and needs no weights: the compilers of TPUs and GPUs run on a
CPU. It says how much memory a chip needs and has, which collectives there are, what time a TPU's
compiler expects, and which instructions are the dearest, with the lines of code that they come
from. A whole ResNet-50's step takes minutes to compile, with --quick a tenth of that.

The compilers are extra packages: pip install 'magnifier-jax[compilers]', or what the error says.
"""

import argparse
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

from magnifier_jax.compilers.targets import Target, open_devices, parse_target, use_no_accelerator
from magnifier_jax.config_argument import load_config
from magnifier_jax.files.user_path import user_path
from magnifier_jax.files.whole_file import check_writable, write_json, write_text
from magnifier_jax.tools.program import check_new, make_parser, run_tool

if TYPE_CHECKING:
  from magnifier_jax.compilers.program import Program

_PEOPLE = 767  # of CUHK03-NP
_TITLES = {"train": "training step", "embed": "embedding"}


def main(argv: list[str]) -> str:
  """Compiles as the arguments say; returns what was found."""
  options, overrides = _parser().parse_known_args(argv)
  target = parse_target(options.target)
  config = load_config(options.config, overrides)
  for file in filter(None, (options.json, options.hlo)):
    check_new(file, options.overwrite)
    check_writable(file)
  devices = open_devices(target)
  # JAX must not start before `cli` has told it that there is no accelerator.
  from magnifier_jax.compilers.program import Program
  from magnifier_jax.devices.mesh import data_mesh

  program = Program(options.what, config, options.people, data_mesh(devices))
  subject = (
    f"{_TITLES[options.what]} of {options.config}, {config.dtype}, {options.people} people, "
    f"for {target.name} by {_compiler(target)}"
  )
  _say(f"compiling the {subject}; a whole network takes minutes")
  text, content = _compile(program, target, options)
  if options.json:
    write_json(options.json, {"what": options.what, "compiler": _compiler(target), **content})
  return f"The {subject}\n\n{text}"


def _compile(
  program: "Program", target: Target, options: argparse.Namespace
) -> tuple[str, dict[str, Any]]:
  from magnifier_jax.compilers import report
  from magnifier_jax.compilers.estimate import OutOfMemoryError, estimate
  from magnifier_jax.compilers.fitting import largest_batch

  try:
    found = estimate(program.lower(), target, program.images, quick=options.quick)
    text, content = report.as_text(found), report.as_json(found)
    if options.hlo:
      write_text(options.hlo, found.hlo)
  except OutOfMemoryError as error:
    if not options.fit:
      raise
    text, content = f"{error}", {"target": target.name, "chips": target.chips, "fits": False}
  if options.fit:
    _say("looking for the largest batch that fits")
    fit = largest_batch(program, target, _say)
    text = f"{text}\n\n{report.fit_as_text(fit, target.chips)}"
    content["largest_batch"] = fit.images
  return text, content


def _compiler(target: Target) -> str:
  """Returns what compiles, with versions."""
  jax = f"jax {metadata.version('jax')}"
  return f"libtpu {metadata.version('libtpu')}, {jax}" if target.is_tpu else f"XLA of {jax}"


def _say(message: str) -> None:
  print(message, file=sys.stderr, flush=True)


def _people(text: str) -> int:
  people = int(text)
  if people < 1:
    raise ValueError
  return people


def _parser() -> argparse.ArgumentParser:
  parser = make_parser("compile_for", __doc__)
  add = parser.add_argument
  add(
    "--target",
    required=True,
    metavar="CHIP:SHAPE",
    help="a TPU slice, as v5e:2x4 (v5e:1 is one chip), or GPUs, as h100:8",
  )
  add(
    "--config",
    required=True,
    metavar="FILE[:VARIANT]",
    help="of the run; fields follow as --config.field=value",
  )
  add(
    "--what",
    choices=tuple(_TITLES),
    default="train",
    help="the training step, or the embedding of an evaluation batch; default: %(default)s",
  )
  add(
    "--people",
    type=_people,
    default=_PEOPLE,
    metavar="N",
    help="identities of the training set, which give the classifiers' size; default: %(default)s",
  )
  add("--fit", action="store_true", help="also find the largest batch that fits")
  add("--quick", action="store_true", help="TPUs: memory and collectives only, much sooner")
  add("--json", type=user_path, metavar="FILE", help="also write all numbers there")
  add("--hlo", type=user_path, metavar="FILE", help="also write the compiled program there")
  add("--overwrite", action="store_true", help="replace the files --json and --hlo")
  return parser


def cli() -> None:
  """Entry point."""
  use_no_accelerator()
  run_tool(main)


if __name__ == "__main__":
  cli()
