r"""Trains variants or settings of a config × seeds, one after the other, and compares them.

  python -m magnifier_jax.tools.ablate --config=configs/cuhk03.py:small --seeds=0,1 \
    --output=runs/ablation --set training.num_epochs=4 loss.diversity_start_epoch=3

The rows of the table are the published ones, or those of --variants, or the config itself with
fields of your choice, each under a name of yours:

    --settings plain= cosine='optimizer.schedule=cosine' \
      large='data.image_size_hw=(192,96) training.num_epochs=4'

Each run has a process and a folder of its own, OUTPUT/ROW/seedN, with its console output in
console.log there. All rows of the first seed come first, so that an interruption leaves a whole
table. The same command again goes on where it stopped: what has finished is left alone, what was
interrupted goes on from its checkpoint. After every run, OUTPUT/comparison.* are written from what
has finished.

Exit code 0: every run has finished. 1: some failed. 2: the command or the config is wrong. 130:
interrupted.
"""

import argparse
import signal
import sys
from collections.abc import Sequence

from magnifier_jax.comparison.ablation import Ablation, AblationError, PlannedRun, plan
from magnifier_jax.files.user_path import user_path
from magnifier_jax.files.whole_file import make_folder
from magnifier_jax.report.published import REFERENCE_ROWS
from magnifier_jax.tools.program import make_parser, run_tool


def main(argv: Sequence[str]) -> int:
  """Runs the command line; returns the exit code."""
  options = _parser().parse_args(argv)
  output = options.output
  runs = plan(
    options.config,
    _variants(options.variants, options.rows),
    _seeds(options.seeds),
    output,
    options.settings,
    options.rows,
  )
  for note in _notes(runs):
    print(f"note: {note}")
  make_folder(output)
  ablation = Ablation(runs, output, sys.stdout)
  failed = ablation.run()
  print(f"\n{ablation.compare() or 'no run has finished, so there is nothing to compare'}")
  for run in failed:
    print(f"FAILED: {run.row}, seed {run.seed}; see {run.workdir / 'console.log'}")
  return 1 if failed else 0


def _variants(variants: str | None, rows: Sequence[str]) -> list[str]:
  """Returns the rows that are variants: the published ones where nothing else is asked for."""
  if variants is None:
    return [] if rows else [row.variant for row in REFERENCE_ROWS]
  names = [name.strip() for name in variants.split(",")]
  if not all(names):
    raise AblationError(f"--variants: {variants!r} must be names with commas between them")
  return names


def _seeds(seeds: str) -> list[int]:
  try:
    return [int(seed) for seed in seeds.split(",")]
  except ValueError as error:
    raise AblationError(
      f"--seeds: {seeds!r} must be whole numbers with commas between them"
    ) from error


def _notes(runs: Sequence[PlannedRun]) -> list[str]:
  """Returns what the user may not have meant."""
  configs = {run.row: run.config for run in runs}
  return [
    f"{row}: the diversity loss would start in epoch {config.loss.diversity_start_epoch} of "
    f"{config.training.num_epochs}, so it never counts; see --set loss.diversity_start_epoch=…"
    for row, config in configs.items()
    if config.model.fusion_branch
    and config.loss.diversity_weight > 0
    and config.loss.diversity_start_epoch > config.training.num_epochs
  ]


def _parser() -> argparse.ArgumentParser:
  parser = make_parser("ablate", __doc__)
  add = parser.add_argument
  add(
    "--config",
    required=True,
    metavar="FILE[:VARIANT]",
    help="config file; all runs share the variants after its colon",
  )
  add(
    "--variants",
    metavar="NAME,…",
    help="rows: variants of the config file, such as paper or fusion+paper; default, without "
    f"--settings: {','.join(row.variant for row in REFERENCE_ROWS)}",
  )
  add(
    "--settings",
    dest="rows",
    nargs="+",
    action="extend",
    default=[],
    metavar="NAME='FIELD=VALUE …'",
    help="rows: the config with these fields; tuples without spaces, (192,96)",
  )
  add("--seeds", default="0", metavar="N,…", help="default: %(default)s")
  add(
    "--output",
    required=True,
    type=user_path,
    metavar="DIR",
    help="folder of the runs and of the comparison",
  )
  add(
    "--set",
    dest="settings",
    nargs="+",
    action="extend",
    default=[],
    metavar="FIELD=VALUE",
    help="fields of the config, for every run",
  )
  return parser


def _end(signal_number: int, _frame: object) -> None:
  sys.exit(128 + signal_number)


def cli() -> None:
  """Entry point."""
  signal.signal(signal.SIGTERM, _end)  # as an exception it stops the run first
  # A shell in the background leaves Ctrl-C ignored; a `kill -INT` is to work there too.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  run_tool(main, "interrupted; the same command goes on where this one stopped")


if __name__ == "__main__":
  cli()
