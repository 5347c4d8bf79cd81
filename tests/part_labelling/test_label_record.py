"""What is remembered of how labels were made."""

import json
from pathlib import Path

import pytest

from magnifier_jax.data.records import SourceError
from magnifier_jax.part_labelling.label_record import LabelRecord
from magnifier_jax.part_labelling.labeller import LabelMethod

_METHOD = LabelMethod("onnx", "parser.onnx", "ab12", {"fit": "pad", "mean": [1.0, 2.0]})
_OTHER = LabelMethod("pose", "model.tflite", "cd34", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
  """A folder with a record of two labels."""
  record = LabelRecord(tmp_path)
  record.add("train/a.png", b"first", _METHOD)
  record.add("train/b.png", b"second", _OTHER)
  return tmp_path


def test_a_record_is_read_again(folder: Path):
  record = LabelRecord(folder)
  assert record.method_of("train/a.png", b"first") == _METHOD
  assert record.method_of("train/b.png", b"second") == _OTHER
  assert record.method_of("train/c.png", b"third") is None


def test_a_label_that_somebody_changed_counts_as_given(folder: Path):
  assert LabelRecord(folder).method_of("train/a.png", b"edited") is None


def test_the_newest_line_counts(folder: Path):
  LabelRecord(folder).add("train/a.png", b"again", _OTHER)
  assert LabelRecord(folder).method_of("train/a.png", b"again") == _OTHER
  assert LabelRecord(folder).method_of("train/a.png", b"first") is None


def test_a_method_is_written_once(folder: Path):
  LabelRecord(folder).add("train/c.png", b"third", _METHOD)
  lines = [json.loads(line) for line in (folder / "label_parts.jsonl").read_text().splitlines()]
  assert sum("sha256" in line for line in lines) == 2
  assert len(lines) == 5


@pytest.mark.parametrize("cut", [1, 10])
def test_half_of_a_last_line_is_dropped(folder: Path, cut: int):
  file = folder / "label_parts.jsonl"
  file.write_bytes(file.read_bytes()[:-cut])
  record = LabelRecord(folder)
  assert record.method_of("train/a.png", b"first") == _METHOD
  record.add("train/b.png", b"second", _OTHER)
  assert LabelRecord(folder).method_of("train/b.png", b"second") == _OTHER


def test_a_damaged_line_is_named(folder: Path):
  file = folder / "label_parts.jsonl"
  lines = file.read_text().splitlines(keepends=True)
  file.write_text("".join([lines[0], "{}\n", *lines[2:]]))
  with pytest.raises(SourceError, match=r"label_parts\.jsonl, line 2: damaged; delete the line"):
    LabelRecord(folder)


def test_where_the_model_lies_does_not_make_another_method():
  moved = LabelMethod("onnx", "elsewhere/parser.onnx", "ab12", dict(_METHOD.options))
  assert moved.digest == _METHOD.digest
  assert LabelMethod("onnx", "parser.onnx", "ab13", _METHOD.options).digest != _METHOD.digest
  assert LabelMethod("onnx", "parser.onnx", "ab12", {"fit": "pad"}).digest != _METHOD.digest
