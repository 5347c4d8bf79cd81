"""Arguments of the benchmarks, and the table and JSON that come out."""

import importlib.util
import json
import sys

import pytest

from benchmarks import embedding, train_step
from benchmarks.command_line import comparison_record, run, table_lines
from benchmarks.comparison import Probe, SideComparison, SideResult, fastest
from benchmarks.reporting import Column, header, line
from benchmarks.side import Lap, Peaks, Work


def comparison() -> SideComparison:
  """Returns sides whose steps take 1, 2 and 4 s against 2, 3 and 2 s."""
  sides = [
    SideResult([Lap(s, 2 * s) for s in seconds], 0.0, Peaks(100.0, 200.0), rate)
    for seconds, rate in (((1.0, 2.0, 4.0), 50e9), ((2.0, 3.0, 2.0), 100e9))
  ]
  work = Work("train_step", "cpu", 8, (384, 192), "resnet50", "float32")
  return SideComparison(work, "channels_last", [Probe("contiguous", None, "x")], 1, 10**11, *sides)


def test_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds():
  assert comparison().ratio == 1.0
  assert comparison().ratio_spread == (0.5, 2.0)


def test_table_has_rates_and_the_share_of_the_faster_matrix_product():
  _, ours, theirs = (text.split() for text in table_lines(comparison()))
  assert " ".join(ours) == "8 float32 JAX 2000.0 4.00 4000.0 50.0 100 200 1.000 0.500–2.000"
  assert theirs[:4] == ["8", "float32", "PyTorch", "channels_last"]


def test_json_holds_every_lap_by_name():
  record = json.loads(json.dumps(comparison_record(comparison())))
  assert record["jax"]["laps"][1] == {"seconds": 2.0, "cpu_seconds": 4.0}
  assert record["pytorch"]["images_per_second"] == 4.0
  assert record["work"]["image_size_hw"] == [384, 192]
  assert record["probes"][0]["error"] == "x"


def test_fastest_variant_is_among_those_that_work():
  assert fastest([Probe("a", None, "failed"), Probe("b", 2.0), Probe("c", 1.0)]) == "c"


def test_text_is_to_the_left_and_numbers_to_the_right():
  columns = (Column("name", 6), Column("ms", 5, ".1f"), Column("MB", 4, ".0f"))
  assert header(columns) == "name      ms   MB"
  assert line(columns, ("a", 1.25, None)) == "a        1.2    -"


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--batch=6"], "6: a batch has 4 images of each of two people or more; give a multiple of 4"),
    (["--batch=4"], "give a multiple of 4 from 8"),
    (["--batch=8,none"], "'none' is not a positive whole number"),
    (["--size=100,50"], "'100,50' is not height,width in multiples of 32"),
    (["--dtype=float16"], "invalid choice: 'float16' (from float32, bfloat16)"),
    (["--backbone=vgg"], "invalid choice: 'vgg'"),
    (["--variants=fast"], "invalid choice: 'fast' (from contiguous, channels_last,"),
  ],
)
def test_wrong_arguments_are_named(
  arguments: list[str],
  message: str,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture,
):
  monkeypatch.setattr(sys, "argv", ["train_step", *arguments])
  with pytest.raises(SystemExit, match="2"):
    train_step.main()
  assert message in capsys.readouterr().err


def test_missing_pytorch_is_one_line(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
  monkeypatch.setattr(sys, "argv", ["embedding"])
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(SystemExit, match="2"):
    run(embedding.main)
  expected = "error: PyTorch, the other side, is not installed; pip install 'torch>=2.6'\n"
  assert capsys.readouterr().err == expected


def test_no_compiler_leaves_the_eager_variants(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
  monkeypatch.setenv("CXX", "no-such-compiler")
  monkeypatch.setattr(sys, "argv", ["train_step", "--variants=channels_last+compile"])
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
  with pytest.raises(SystemExit, match="2"):
    run(train_step.main)
  assert "torch.compile needs a C++ compiler; install no-such-compiler" in capsys.readouterr().err
