"""Reads named columns of a user's CSV file."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from magnifier_jax.data.records import SourceError

_DELIMITERS = (",", ";", "\t")  # spreadsheets write what their country's settings say


def read_columns(
  table: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, list[str]]]:
  """Reads a CSV file in UTF-8 with a heading; columns are divided by commas, semicolons or tabs.

  Args:
    table: with the required columns, in any order and beside any others.
    required: names of columns.
    optional: likewise; their cells are '' where there is no such column.

  Yields:
    The line, from 1, and the cells of these columns, of each row that is not empty.

  Raises:
    SourceError: when a column is missing, or it is no such file.
  """
  try:
    with table.open(newline="", encoding="utf-8-sig") as file:
      start = file.tell()
      heading = file.readline()
      file.seek(start)
      reader = csv.reader(file, delimiter=max(_DELIMITERS, key=heading.count))
      names = [name.strip().lower() for name in next(reader, [])]
      _check_heading(table, heading, names, required)
      places = [names.index(n) if n in names else len(names) for n in (*required, *optional)]
      for row in reader:
        if row:
          cells = [row[place].strip() if place < len(row) else "" for place in places]
          yield reader.line_num, cells
  except (UnicodeDecodeError, csv.Error) as error:
    raise SourceError(f"{table}: not a CSV file in UTF-8 ({error})") from error


def _check_heading(
  table: Path, heading: str, names: Sequence[str], required: Sequence[str]
) -> None:
  missing = [name for name in required if name not in names]
  if missing:
    raise SourceError(
      f"{table}: column {missing[0]!r} missing; the columns are {', '.join(required)}, divided by "
      f"commas, semicolons or tabs, but the first line is {heading.strip()[:80]!r}"
    )
