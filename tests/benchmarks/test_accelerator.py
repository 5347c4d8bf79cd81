"""The one call for a real accelerator: its plan, its limits, its page, and a rehearsal on a CPU.

The rehearsal runs where accelerators are lent: in Python 3.12 with JAX 0.11, Flax, Optax and Orbax
alone. `.ci/run` makes such an environment beside the tests' own; `MAGNIFIER_JAX_BARE_PYTHON` names
another's interpreter.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import accelerator, accelerator_parts
from benchmarks.accelerator import Processes, Results, run_part
from benchmarks.accelerator_parts import Findings, Order
from benchmarks.accelerator_plan import EXTRA, KINDS, Part, plan
from benchmarks.accelerator_report import as_markdown
from benchmarks.comparison import SideComparison, SideResult
from benchmarks.side import Lap, Peaks, Work
from benchmarks.worker import SideError
from magnifier_jax.errors import UserError
from tests import golden_numbers
from tests.conftest import QUICK_FUSIONS

WORK = Work("train_step", "gpu", 64, (384, 192), "resnet50", "bfloat16")
# What the machine of an accelerator may lack, and Pytest.
ABSENT = (
  "tensorflow",
  "tensorflow_datasets",
  "clu",
  "ml_collections",
  "tensorboard",
  "matplotlib",
  "PIL",
  "h5py",
  "pyarrow",
  "array_record",
  "pytest",
)
PARITY = ("outputs", "losses", "gradients", "statistics", "updates")
LITTLE = "--xla_backend_optimization_level=0"
TINY = (
  "--device=cpu",
  "--size=64,32",
  "--backbone=resnet10_narrow",
  "--dtype=bfloat16",
  "--batch=8",
  "--rounds=2",
  "--matrix_size=256",
)


def names(parts: list[Part]) -> list[str]:
  return [part.name for part in parts]


def test_the_most_important_comes_first():
  parts = plan(KINDS, WORK, ("bfloat16", "float32"), (64, 128))
  assert names(parts) == [
    "parity",
    "train_step, bfloat16, batch 64",
    "profile of train_step, bfloat16, batch 64",
    "embedding, bfloat16, batch 64",
    "memory of train_step, bfloat16, batch 64",
    "train_step, bfloat16, batch 128",
    "train_step, float32, batch 64",
    "embedding, bfloat16, batch 128",
    "embedding, float32, batch 64",
    "train_step, float32, batch 128",
    "embedding, float32, batch 128",
    "variants of train_step, bfloat16, batch 64",
  ]
  assert names(plan(("parity", *EXTRA), WORK, ("float32",), (8,))) == [
    "parity",
    "variants of train_step, float32, batch 8",
  ]


def test_an_order_reaches_its_process_as_it_is():
  for part in plan(KINDS, WORK, ("bfloat16",), (64,)):
    order = Order(part, 5, ["channels_last"], Path("found.json"))
    assert Order.from_json(order.to_json()) == order


@pytest.fixture
def order(tmp_path: Path) -> Order:
  return Order(Part("comparison", WORK), 1, [], tmp_path / "found.json")


def run_program(program: str, order: Order, left: float, monkeypatch: pytest.MonkeyPatch):
  """Returns the outcome of a part that is a program of a few lines."""
  monkeypatch.setattr(accelerator, "_PROGRAM", ("-c", program))
  folder = order.result.parent
  return run_part(order, Processes(folder, folder / "log.txt", on_cpu=True), left)


def test_a_part_that_is_cut_off_keeps_what_it_found_and_leaves_no_process(
  order: Order, monkeypatch: pytest.MonkeyPatch
):
  program = f"""
import subprocess, time
child = subprocess.Popen(["sleep", "60"])
open({str(order.result)!r}, "w").write('{{"child": %d}}' % child.pid)
time.sleep(60)
"""
  monkeypatch.setattr(Part, "least", 0)
  outcome = run_program(program, order, 1.5, monkeypatch)
  assert outcome["state"] == "cut off"
  assert 1.5 <= outcome["seconds"] < 10
  status = Path(f"/proc/{outcome['found']['child']}/status")
  time.sleep(0.2)
  assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_part_that_fails_says_why_and_the_log_has_all(
  order: Order, monkeypatch: pytest.MonkeyPatch
):
  outcome = run_program("print('first'); raise SystemExit('why')", order, 100.0, monkeypatch)
  assert outcome["state"] == "failed"
  assert outcome["error"] == "first\nwhy"
  assert "why" in (order.result.parent / "log.txt").read_text()
  assert outcome["found"] == {}


def test_a_part_without_time_is_not_started(order: Order, monkeypatch: pytest.MonkeyPatch):
  outcome = run_program("raise SystemExit('started')", order, 40.0, monkeypatch)
  assert outcome["state"] == "no time"


@pytest.mark.parametrize("works", ["plain", "none"])
def test_a_twin_that_fails_is_tried_plain_and_then_left_out(
  works: str, order: Order, monkeypatch: pytest.MonkeyPatch
):
  tried = []

  def compare(work: Work, variants: list[str], *_, **__) -> SideComparison:
    tried.append(variants)
    if works == "none" or variants != ["channels_last"]:
      raise SideError("PyTorch failed:\nRuntimeError: no compiler")
    return SideComparison(work, "channels_last", [], 1, 10**12, alone, alone)

  alone = SideResult([Lap(0.02, 0.1)], 0.0, Peaks(None, 100.0), 7e14)
  monkeypatch.setattr(accelerator_parts, "_no_twin", lambda work: None)
  monkeypatch.setattr(accelerator_parts, "compare", compare)
  monkeypatch.setattr(accelerator_parts, "measure_alone", lambda *_: alone)
  findings = Findings(order.result)
  accelerator_parts.comparison(order._replace(variants=["contiguous+compile"]), findings)
  assert tried == [["contiguous+compile"], ["channels_last"]]
  assert findings.get("variant") == ("channels_last" if works == "plain" else None)
  reason = "RuntimeError: no compiler" if works == "none" else None
  assert findings.get("without_twin") == reason
  assert findings["jax"]["seconds"] == 0.02


def side(milliseconds: float) -> dict[str, Any]:
  return {
    "seconds": milliseconds / 1e3,
    "images_per_second": 64e3 / milliseconds,
    "peaks": {"steps": None, "whole": 5000.0},
    "matrix_product_rate": 700e12,
  }


def part(kind: str, found: dict[str, Any], state: str = "done", error: str = "") -> dict[str, Any]:
  name = Part(kind, None if kind == "parity" else WORK).name
  return {"name": name, "kind": kind, "state": state, "seconds": 9.0, "found": found} | {
    "error": error
  }


COMPILATION = {
  "trace_seconds": 4.0,
  "compile_seconds": 50.0,
  "from_cache": False,
  "operations": 5e12,
}
FINISHED = {
  "work": WORK._asdict(),
  "operations": 4.2e12,
  "variant": "channels_last+compile",
  "ratio": 1.5,
  "ratio_spread": [1.4, 1.6],
  "jax": side(20.0),
  "pytorch": side(30.0),
  "compilation": COMPILATION,
}


def page(*parts: dict[str, Any]) -> str:
  return as_markdown({"started": "today", "machine": {"device": "H100"}, "parts": list(parts)})


def test_page_has_both_sides_their_share_of_the_rate_and_the_time_to_compile():
  text = page(part("comparison", FINISHED))
  assert "- device: H100" in text
  row = "| 20.0 | 3200 | 30.0 | 5000 | channels_last+compile | 30.0 | 20.0 | 5000 |"
  assert f"| train_step, bfloat16, batch 64 {row} 1.50 (1.40–1.60) |" in text
  assert "bfloat16 700 TFLOP/s" in text
  assert "| train_step, bfloat16, batch 64 | 4.0 | 50.0 | no |" in text


def test_page_has_our_side_alone_by_xlas_count():
  alone = {"work": WORK._asdict(), "jax": side(20.0), "without_twin": "none here"}
  text = page(part("comparison", alone | {"compilation": COMPILATION}))
  assert "| 20.0 | 3200 | 35.7 | 5000 | none here |" in text


def test_page_of_a_comparison_that_was_cut_off_has_the_first_times():
  found = {"first_jax_seconds": 0.021, "compilation": COMPILATION}
  text = page(part("comparison", found, "cut off"))
  assert "| train_step, bfloat16, batch 64 | 21.0 (first) |" in text
  assert "- train_step, bfloat16, batch 64: cut off at its time limit, 9 s" in text


def test_page_says_where_numbers_do_not_agree_and_what_failed():
  group = {"numbers": 10, "agrees": False, "name": "logits", "found": 0.1, "allowed": 1e-6}
  failed = part("memory", {}, "failed", "Traceback\nMemoryError: all is used")
  text = page(part("parity", {"dtype": "float64", "outputs": group}), failed)
  assert "| outputs | 10 | DO NOT agree | logits | 1.0e-01 | 1e-06 |" in text
  assert "failed, 9 s; MemoryError: all is used" in text


@pytest.mark.parametrize("found", [0.1, float("nan")])
def test_other_numbers_than_the_authors_fail_the_part(
  found: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  for group in ("loss", "gradient", "statistics", "update"):
    agreeing = golden_numbers.Deviation("alike", 1e-9, 1e-6)
    monkeypatch.setattr(golden_numbers, f"{group}_deviations", lambda *_, one=agreeing: [one])
  other = golden_numbers.Deviation("logits", found, 1e-6)
  monkeypatch.setattr(golden_numbers, "output_deviations", lambda *_: [agreeing, other])
  monkeypatch.setattr(golden_numbers, "compute", lambda case: None)
  findings = Findings(tmp_path / "found.json")
  order = Order(Part("parity", None), 1, [], tmp_path / "found.json")
  with pytest.raises(UserError, match=r"not the authors' numbers: outputs$"):
    accelerator_parts.parity(order, findings)
  kept = json.loads((tmp_path / "found.json").read_text())
  assert [kept[name]["agrees"] for name in PARITY] == [name != "outputs" for name in PARITY]


def run_script(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
  """Runs the script from elsewhere, compiling quickly."""
  script = Path(__file__).parents[2] / "benchmarks" / "accelerator.sh"
  level = {"XLA_FLAGS": LITTLE}
  return subprocess.run(
    [script, *arguments],
    cwd=folder,
    env=os.environ | level | {"OUT": "results", "PYTHON": sys.executable} | environment,
    capture_output=True,
    text=True,
  )


def test_a_machine_without_an_accelerator_is_told_in_one_line(tmp_path: Path):
  done = run_script(tmp_path)
  assert done.returncode == 2
  expected = "error: JAX finds no accelerator; --device=cpu is for a rehearsal with tiny sizes\n"
  assert done.stderr == expected


def test_earlier_results_are_kept(tmp_path: Path):
  results = Results(tmp_path, 8.0)
  results.write()
  before = results.json.read_bytes()
  done = run_script(tmp_path, f"--out={tmp_path}")
  assert done.returncode == 2
  assert done.stderr.endswith("results.json exists; name another folder\n")
  assert results.json.read_bytes() == before


def test_nothing_on_its_path_imports_what_the_machine_may_lack(repository: Path):
  program = f"""
import sys
for name in {ABSENT}:
  sys.modules[name] = None  # an import of it raises
import benchmarks.accelerator, benchmarks.accelerator_parts, benchmarks.embedding
import benchmarks.jax_side, benchmarks.train_step, tests.golden_numbers
from benchmarks.side import Work, draw_batch
draw_batch(Work("train_step", "cpu", 8, (32, 32), "resnet18", "float32"))
try:
  import torch
except ImportError:
  pass
else:
  import benchmarks.pytorch_side
"""
  subprocess.run([sys.executable, "-c", program], cwd=repository, check=True)


@pytest.fixture(scope="module")
def bare_python() -> str:
  """An interpreter with what the machine of an accelerator has, and no more."""
  beside = Path(sys.prefix) / "bare" / "bin" / "python"
  python = os.environ.get("MAGNIFIER_JAX_BARE_PYTHON", str(beside))
  if not Path(python).exists():
    pytest.skip(f"there is no bare environment of Python 3.12 and JAX 0.11 at {python}")
  return python


@pytest.mark.slow
def test_rehearsal_in_a_bare_environment(bare_python: str, tmp_path: Path):
  imports = f"import importlib.util as u; print([n for n in {ABSENT[:4]} if u.find_spec(n)])"
  absent = subprocess.run([bare_python, "-c", imports], capture_output=True, text=True, check=True)
  assert absent.stdout.strip() == "[]"

  done = run_script(tmp_path, *TINY, "--minutes=30", PYTHON=bare_python)

  assert done.returncode == 0, done.stdout + done.stderr
  content = json.loads((tmp_path / "results" / "results.json").read_text())
  assert content["machine"]["python"].startswith("3.12.")
  assert content["machine"]["jax"].startswith("0.11.")
  parts = {found["name"]: found for found in content["parts"]}
  assert {found["state"] for found in parts.values()} == {"done"}
  step = "train_step, bfloat16, batch 8"
  assert list(parts) == [
    "parity",
    step,
    f"profile of {step}",
    "embedding, bfloat16, batch 8",
    f"memory of {step}",
  ]
  parity = parts["parity"]["found"]
  assert all(parity[name]["agrees"] for name in PARITY)
  assert parity["gradients"]["numbers"] == 220
  assert parts[step]["found"]["jax"]["seconds"] > 0
  assert not parts[step]["found"]["compilation"]["from_cache"]
  profile = parts[f"profile of {step}"]["found"]
  assert profile["compilation"]["from_cache"]
  assert len(profile["kernels"]) == 10
  # Of so small a network they are products, not convolutions: those of the gradient among them.
  operations = [kernel["operation"] for kernel in profile["kernels"]]
  assert any("transpose(jvp" in name and "dot_general" in name for name in operations), operations
  memory = parts[f"memory of {step}"]["found"]
  assert memory["rematerialized"]["operations"] > memory["plain"]["operations"]
  assert "×" in (tmp_path / "results" / "results.md").read_text()


@pytest.mark.slow
def test_rehearsal_beside_the_twin(tmp_path: Path):
  pytest.importorskip("torch", reason="PyTorch is not installed: pip install .[torch]")
  absent = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in ABSENT)
  (tmp_path / "sitecustomize.py").write_text(absent)
  done = run_script(
    tmp_path,
    *TINY,
    "--backbone=resnet18",  # the twin's smallest
    "--parts=comparison",
    "--variants=channels_last",
    "--minutes=30",
    PYTHONPATH=str(tmp_path),
    XLA_FLAGS=f"{LITTLE} {QUICK_FUSIONS}",
  )
  assert done.returncode == 0, done.stdout + done.stderr
  content = json.loads((tmp_path / "results" / "results.json").read_text())
  for found in content["parts"]:
    assert found["found"]["ratio"] > 0
    assert found["found"]["variant"] == "channels_last"
