r"""Compares evaluated runs with one another and with the published numbers of their data set.

  python -m magnifier_jax.tools.compare runs/cuhk03 runs/cuhk03_seed1
  python -m magnifier_jax.tools.compare runs/ablation/*/seed* --write=table.md --write=table.html

Runs that differ in nothing but the seed become one row: mean ± sample standard deviation. Runs on
different data sets come in tables of their own. The formats of --write are Markdown, JSON, a page
with bar charts (.html) and the bar chart alone (.svg).
"""

from collections.abc import Sequence

from magnifier_jax.comparison.output_files import check_suffix, write_comparison
from magnifier_jax.comparison.runs import compare
from magnifier_jax.comparison.tables import as_text
from magnifier_jax.files.user_path import user_path
from magnifier_jax.tools.program import check_new, make_parser, run_tool


def main(argv: Sequence[str]) -> str:
  """Compares as the arguments say; returns the tables."""
  parser = make_parser("compare", __doc__)
  parser.add_argument(
    "workdirs", nargs="+", type=user_path, metavar="WORKDIR", help="of a run that was evaluated"
  )
  parser.add_argument(
    "--write",
    dest="files",
    action="append",
    type=user_path,
    default=[],
    metavar="FILE",
    help="write the comparison to a .md, .json, .html or .svg file; may be repeated",
  )
  parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
  options = parser.parse_args(argv)
  for file in options.files:
    check_suffix(file)
    check_new(file, options.overwrite)
  comparisons = compare(options.workdirs)
  for file in options.files:
    write_comparison(comparisons, file)
  return "\n".join([as_text(comparisons), *(f"written: {file}" for file in options.files)])


def cli() -> None:
  """Entry point."""
  run_tool(main)


if __name__ == "__main__":
  cli()
