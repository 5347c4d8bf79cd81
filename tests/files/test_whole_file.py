"""Files appear whole or not at all; what stops them is one line."""

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from magnifier_jax.errors import UserError
from magnifier_jax.files.whole_file import (
  WriteError,
  check_writable,
  make_folder,
  replacing,
  write_bytes,
  write_json,
  write_text,
)
from tests.full_disk import full_disk

pytestmark = pytest.mark.usefixtures("capsys")


def test_a_file_takes_the_place_of_the_one_before(tmp_path: Path):
  path = tmp_path / "metrics.json"
  write_json(path, {"a": 1})
  write_json(path, {"a": 2})
  assert json.loads(path.read_text()) == {"a": 2}
  assert os.listdir(tmp_path) == ["metrics.json"]


@pytest.mark.parametrize(
  "write",
  [
    lambda path: write_bytes(path, b"new" * 99),
    lambda path: write_text(path, "–" * 99),
    lambda path: write_json(path, "new" * 99),
  ],
  ids=["bytes", "text", "json"],
)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, write: Callable[[Path], None]):
  path = tmp_path / "metrics.json"
  path.write_text("old")
  expected = rf"{re.escape(str(path))}: cannot be written: .*; free some space there, or have"
  with full_disk(left_bytes=10), pytest.raises(WriteError, match=expected) as caught:
    write(path)
  assert "\n" not in str(caught.value)
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["metrics.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_each_reason_has_its_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
  def refuse(self: Path, data: bytes) -> None:
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(Path, "write_bytes", refuse)
  mend = "free some space" if number in (errno.ENOSPC, errno.EDQUOT) else "name another folder"
  with pytest.raises(WriteError, match=rf"a\.png: .*{os.strerror(number)}; {mend}"):
    write_bytes(tmp_path / "a.png", b"", "name another folder with --to")


def test_a_path_below_a_file_is_named(tmp_path: Path):
  (tmp_path / "file").write_text("in the way")
  for write in (lambda path: write_text(path, ""), make_folder, check_writable):
    with pytest.raises(WriteError, match=r"file/x: cannot be written: Not a directory; name"):
      write(tmp_path / "file" / "x")


def test_a_folder_is_no_file(tmp_path: Path):
  for write in (lambda path: write_text(path, ""), check_writable):
    with pytest.raises(WriteError, match="Is a directory"):
      write(tmp_path)
  assert os.listdir(tmp_path) == []


def test_whether_a_file_can_be_written_is_found_without_touching_it(tmp_path: Path):
  path = tmp_path / "page.html"
  path.write_text("old")
  check_writable(path)
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["page.html"]


def test_an_error_of_another_kind_passes_and_leaves_nothing(tmp_path: Path):
  def write_half() -> None:
    with replacing(tmp_path / "a") as unfinished:
      unfinished.write_text("half")
      raise UserError("mine")

  with pytest.raises(UserError, match="mine"):
    write_half()
  assert os.listdir(tmp_path) == []


def test_names_as_long_as_a_file_system_takes(tmp_path: Path):
  for name in ("a" * 251 + ".png", "é" * 120 + ".png", "…" * 83 + ".png"):
    write_bytes(tmp_path / name, b"x")
    assert (tmp_path / name).read_bytes() == b"x"
