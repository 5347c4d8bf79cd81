r"""Converts weights: from a PyTorch or safetensors file to a workdir, or from a workdir to a file.

  python -m magnifier_jax.tools.convert --config=configs/cuhk03.py \
    --from=magnifiernet.pth --to=runs/authors
  python -m magnifier_jax.tools.convert --from=runs/cuhk03 --to=magnifiernet.safetensors

Names and layouts in files are those of the authors' network. A converted workdir is evaluated with
`python -m magnifier_jax.main --mode=evaluate` and the same config; to train on, set
--config.init.checkpoint to the workdir or the file.
"""

import argparse
from pathlib import Path

from absl import logging

from magnifier_jax.config import Config
from magnifier_jax.config_argument import load_config
from magnifier_jax.errors import UserError
from magnifier_jax.files.user_path import user_path
from magnifier_jax.tools.program import add_checkpoint, check_new, make_parser, run_tool


class ConvertError(UserError):
  """The command line asks for something that cannot be converted."""


def import_file(config: Config, source: Path, workdir: Path) -> str:
  """Converts a file to the checkpoint of a workdir.

  Args:
    config: of the network that the file is of; the number of people is the file's.
    source: PyTorch (zip or legacy) or safetensors.
    workdir: without checkpoints.

  Returns:
    What was done, for the user.

  Raises:
    WeightsFileError, BackboneError, StateDictError: when the file cannot be read or does not fit.
    CheckpointError: when the workdir has checkpoints.
    WriteError, DiskFullError: when it cannot be written.
  """
  from magnifier_jax.interop.weights_file import read_weights
  from magnifier_jax.weights.workdir_weights import write_workdir

  weights = read_weights(source)
  record = write_workdir(config, weights, workdir)
  return (
    f"{source} (SHA-256 {weights.sha256}), {record.num_people} people → checkpoint of step 0 in "
    f"{workdir}"
  )


def export_workdir(workdir: Path, which: str, target: Path) -> str:
  """Converts a checkpoint to a file.

  Args:
    workdir: of a run; its config lies with the checkpoint.
    which: 'latest' or 'best', by mAP.
    target: .pth, .pt or .safetensors; a file there is replaced.

  Returns:
    What was done, for the user.

  Raises:
    CheckpointError: when there is no checkpoint.
    WriteError: when the file cannot be written.
  """
  from magnifier_jax.interop.weights_file import check_suffix, write_weights
  from magnifier_jax.weights.workdir_weights import read_workdir

  check_suffix(target)
  weights = read_workdir(workdir, which)
  digest = write_weights(target, weights.state_dict)
  return f"checkpoint of step {weights.step} in {workdir} → {target} (SHA-256 {digest})"


def main(argv: list[str]) -> str:
  """Converts as the arguments say; returns what was done."""
  options, overrides = _parser().parse_known_args(argv)
  source, target = options.source, options.target
  if source.is_dir():
    if options.config or overrides:
      unused = [f"--config={options.config}"] * bool(options.config) + overrides
      raise ConvertError(f"{unused[0]}: not used; the config lies with the checkpoint in {source}")
    check_new(target, options.overwrite)
    return export_workdir(source, options.checkpoint, target)
  if not source.exists():
    raise ConvertError(f"--from: no file or workdir {source}")
  if not options.config:
    raise ConvertError("--config: missing; the file does not say which network it is of")
  if target.suffix:
    raise ConvertError(f"--to: {target} must be a workdir, since --from is a file")
  return import_file(load_config(options.config, overrides), source, target)


def _parser() -> argparse.ArgumentParser:
  parser = make_parser("convert", __doc__)
  add = parser.add_argument
  path = {"type": user_path, "required": True, "metavar": "PATH"}
  add("--from", dest="source", **path, help="a file of weights or a workdir")
  add("--to", dest="target", **path, help="a workdir or a file of weights")
  add(
    "--config",
    metavar="FILE[:VARIANT]",
    help="of the network in the file; fields follow as --config.field=value",
  )
  add_checkpoint(parser)
  add("--overwrite", action="store_true", help="replace the file --to")
  return parser


def cli() -> None:
  """Entry point."""
  logging.set_verbosity(logging.ERROR)  # Orbax warns that what is opened for reading is read-only
  run_tool(main)


if __name__ == "__main__":
  cli()
