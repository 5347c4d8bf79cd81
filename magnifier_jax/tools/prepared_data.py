"""Lists the prepared copies of data sets, and removes old ones.

  python -m magnifier_jax.tools.prepared_data
  python -m magnifier_jax.tools.prepared_data --data_dir=FOLDER --remove=COPY

The state of a copy is 'current' when a folder of images is as it was when it was compared with the
copy last, 'replaced' when that folder has changed since, and 'unfinished' when it is being made, or
was when that was ended. Copies of earlier versions of magnifier_jax are 'outdated': they are not
read any more. A copy that a running process reads is never removed. Exit code 0: done. 2: the
command is wrong, or a copy is in use.
"""

from collections.abc import Iterator, Sequence

from magnifier_jax.data.prepared import catalogue
from magnifier_jax.data.prepared.catalogue import CatalogueEntry, State
from magnifier_jax.errors import UserError
from magnifier_jax.files.user_path import user_path
from magnifier_jax.tools.program import make_parser, run_tool

_OLD = "old"


class RemoveError(UserError):
  """There is no copy of that key."""


def _table(entries: Sequence[CatalogueEntry]) -> Iterator[str]:
  rows = [("copy", "data set", "state", "images", "MB", "made", "from")]
  rows += [
    (
      entry.folder.name,
      entry.dataset,
      entry.state.value + ", in use" * entry.in_use,
      f"{entry.images:,}" if entry.images else "–",
      f"{entry.num_bytes / 1e6:,.0f}",
      entry.made or "–",
      entry.made_from or "–",
    )
    for entry in entries
  ]
  widths = [max(map(len, column)) for column in zip(*rows)]
  for row in rows:
    yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()


def _chosen(entries: Sequence[CatalogueEntry], what: str) -> list[CatalogueEntry]:
  """Returns the copies that `--remove` names."""
  if what == _OLD:
    return [entry for entry in entries if entry.state is not State.CURRENT and not entry.in_use]
  by_name = {entry.folder.name: entry for entry in entries if entry.state is not State.OUTDATED}
  by_name |= {str(entry.folder): entry for entry in entries}
  unknown = [name for name in what.split(",") if name not in by_name]
  if unknown:
    raise RemoveError(
      f"--remove: no copy is called {unknown[0]}; give keys of the list, or '{_OLD}'"
    )
  return [by_name[name] for name in what.split(",")]


def main(argv: Sequence[str]) -> str:
  """Runs the command line; returns what to print."""
  parser = make_parser("prepared_data", __doc__)
  parser.add_argument(
    "--data_dir",
    default=catalogue.DEFAULT_DATA_DIR,
    help="as config.data.data_dir (%(default)s)",
  )
  parser.add_argument(
    "--remove",
    metavar="COPY[,COPY…]",
    help=f"copies to delete; '{_OLD}' is all that are neither current nor in use",
  )
  options = parser.parse_args(argv)
  data_dir = user_path(options.data_dir)
  entries = list(catalogue.entries(data_dir))
  if not entries:
    return f"no prepared copies in {data_dir}"
  if options.remove is None:
    return "\n".join(_table(entries))
  chosen = _chosen(entries, options.remove)
  for entry in chosen:
    catalogue.remove(entry)
  freed = sum(entry.num_bytes for entry in chosen)
  return f"removed {len(chosen)} of {len(entries)} copies, {freed / 1e6:,.0f} MB"


def cli() -> None:
  """Entry point."""
  run_tool(main)


if __name__ == "__main__":
  cli()
