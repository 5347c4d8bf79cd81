"""A folder takes its place whole, or leaves what was there."""

import os
from pathlib import Path

import pytest

from magnifier_jax.files.whole_file import WriteError
from magnifier_jax.files.whole_folder import new_folder


def fill(path: Path, text: str) -> None:
  with new_folder(path) as folder:
    (folder / "file").write_text(text)


def fill_half(path: Path) -> None:
  with new_folder(path) as folder:
    (folder / "file").write_text("half")
    raise OSError("no more")


def test_it_appears_with_what_was_written(tmp_path: Path):
  fill(tmp_path / "above" / "folder", "new")
  assert (tmp_path / "above" / "folder" / "file").read_text() == "new"
  assert os.listdir(tmp_path / "above") == ["folder"]


def test_an_error_leaves_what_was_there(tmp_path: Path):
  fill(tmp_path / "folder", "old")
  with pytest.raises(OSError, match="no more"):
    fill_half(tmp_path / "folder")
  assert (tmp_path / "folder" / "file").read_text() == "old"
  assert os.listdir(tmp_path) == ["folder"]


def test_it_replaces_a_folder_whole(tmp_path: Path):
  fill(tmp_path / "folder", "old")
  (tmp_path / "folder" / "other").touch()
  fill(tmp_path / "folder", "new")
  assert os.listdir(tmp_path / "folder") == ["file"]
  assert os.listdir(tmp_path) == ["folder"]


def test_what_cannot_take_its_place_brings_back_what_was_there(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  fill(tmp_path / "folder", "old")
  rename = Path.rename

  def fail_for_the_new(self: Path, target: Path) -> Path:
    if self.suffix == ".tmp":
      raise PermissionError(13, "Permission denied")
    return rename(self, target)

  monkeypatch.setattr(Path, "rename", fail_for_the_new)
  with pytest.raises(WriteError, match=r"folder: cannot be written: Permission denied"):
    fill(tmp_path / "folder", "new")
  assert (tmp_path / "folder" / "file").read_text() == "old"
  assert os.listdir(tmp_path) == ["folder"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
  (tmp_path / "file").touch()
  with pytest.raises(WriteError, match=r"file/folder: cannot be written: File exists"):
    fill(tmp_path / "file" / "folder", "new")
