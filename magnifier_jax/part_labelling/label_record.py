"""Remembers beside the part labels by which method each was made.

`label_parts.jsonl` in the folder of labels has a line a method and a line a label, in the order of
making. A label's digest tells whether the file there is still the one that the line is about.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from magnifier_jax.data.records import SourceError
from magnifier_jax.files.whole_file import writing
from magnifier_jax.part_labelling.labeller import LabelMethod

_FILE_NAME = "label_parts.jsonl"


class _Entry(NamedTuple):
  """What a line says of a label."""

  method: str  # its digest
  content: str  # digest of the file


class LabelRecord:
  """The record of one folder of part labels.

  Args:
    folder: of the labels; it need not exist.

  Raises:
    SourceError: when the record there is damaged.
  """

  def __init__(self, folder: Path):
    self._file = folder / _FILE_NAME
    self._methods: dict[str, LabelMethod] = {}
    self._entries: dict[str, _Entry] = {}
    self._whole_lines_bytes: int | None = None  # None: the file ends with a whole line
    if self._file.is_file():
      self._read()

  def _read(self) -> None:
    lines = self._file.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
      # A kill can leave half of the last line; anything else is not ours, and stays.
      if not lines.pop().startswith(b"{"):
        raise SourceError(f"{self._file}: not a record of part labels; move it away")
      self._whole_lines_bytes = sum(map(len, lines))
    for number, line in enumerate(lines, start=1):
      try:
        self._add(json.loads(line))
      except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
          f"{self._file}, line {number}: damaged; delete the line, or the file, and every label "
          "counts as made otherwise"
        ) from error

  def _add(self, line: dict) -> None:
    if "label" in line:
      self._entries[line["label"]] = _Entry(line["method"], line["content"])
    else:
      fields = {name: line[name] for name in LabelMethod.__dataclass_fields__}
      self._methods[line["method"]] = LabelMethod(**fields)

  @property
  def has_labels(self) -> bool:
    """Whether any label was recorded."""
    return bool(self._entries)

  def method_of(self, label: str, content: bytes) -> LabelMethod | None:
    """Returns how a label was made; None when it was given, or changed since.

    Args:
      label: path of the file below the folder, with `/`.
      content: of the file.
    """
    entry = self._entries.get(label)
    if entry is None or entry.content != _digest(content):
      return None
    return self._methods.get(entry.method)

  def add(self, label: str, content: bytes, method: LabelMethod) -> None:
    """Appends a label that is about to be written.

    Args:
      label: path of the file below the folder, with `/`.
      content: of the file.
      method: by which it was made.

    Raises:
      WriteError: when the record cannot be written.
    """
    lines = []
    if method.digest not in self._methods:
      fields = {name: getattr(method, name) for name in LabelMethod.__dataclass_fields__}
      lines.append({"method": method.digest, **fields})
    lines.append({"label": label, "method": method.digest, "content": _digest(content)})
    with writing(self._file):
      if self._whole_lines_bytes is not None:
        os.truncate(self._file, self._whole_lines_bytes)
        self._whole_lines_bytes = None
      with self._file.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
    for line in lines:
      self._add(line)


def _digest(content: bytes) -> str:
  return hashlib.blake2b(content, digest_size=8).hexdigest()
