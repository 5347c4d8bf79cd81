"""An estimate, its text and its JSON, of stored programs in place of compiled ones."""

import json
from types import SimpleNamespace

import jax
import pytest

import magnifier_jax
from magnifier_jax.compilers import report
from magnifier_jax.compilers.estimate import CompilerError, OutOfMemoryError, estimate
from magnifier_jax.compilers.fitting import Fit
from magnifier_jax.compilers.targets import parse_target
from tests.compilers.stored_programs import GPU_LOOP, TPU_LOOP

MEMORY = SimpleNamespace(
  argument_size_in_bytes=3 * 2**30,
  temp_size_in_bytes=2**30,
  output_size_in_bytes=2**30,
  alias_size_in_bytes=2**30,
  generated_code_size_in_bytes=0,
)


def lowered(text: str) -> SimpleNamespace:
  """Returns what compiles to a stored program, as if its code lay in the package."""
  [folder] = magnifier_jax.__path__
  text = text.replace("/package/make.py", f"{folder}/compilers/program.py")
  compiled = SimpleNamespace(
    as_text=lambda: text.replace("/package/", f"{folder}/models/"),
    memory_analysis=lambda: MEMORY,
    cost_analysis=lambda: {"flops": 2e6},
  )
  return SimpleNamespace(compile=lambda: compiled)


def refused(message: str) -> SimpleNamespace:
  """Returns what does not compile."""

  def refuse() -> None:
    raise jax.errors.JaxRuntimeError(message)

  return SimpleNamespace(compile=refuse)


def test_a_tpus_time_follows_from_its_cycles():
  found = estimate(lowered(TPU_LOOP), parse_target("v5e:2x2"), 64)
  assert found.cycles == 26018
  assert found.milliseconds == pytest.approx(26018 / 1.5e9 * 1e3)
  assert found.peak_share == pytest.approx(2e6 / (26018 / 1.5e9) / 197e12)
  assert found.memory.total == 4 * 2**30
  assert found.fits
  assert [(place.file, place.line) for place in found.dearest[0].source] == [("models/loop.py", 7)]
  assert found.dearest[0].share == pytest.approx(5 * 2080 / 26018)


def test_quickly_compiled_cycles_mean_nothing():
  before = jax.config.jax_exec_time_optimization_effort
  found = estimate(lowered(TPU_LOOP), parse_target("v5e:2x2"), 64, quick=True)
  assert jax.config.jax_exec_time_optimization_effort == before
  assert (found.cycles, found.milliseconds, found.dearest) == (None, None, [])
  assert found.collectives[0].count == 1
  assert "estimated time" in report.as_text(found)


def test_a_core_has_half_of_a_chips_peak_and_memory():
  whole, half = parse_target("v5e:2x2"), parse_target("v3:2x2")
  chip = whole.chip._replace(devices_per_chip=2)
  share = estimate(lowered(TPU_LOOP), whole, 64).peak_share
  found = estimate(lowered(TPU_LOOP), whole._replace(chip=chip), 64)
  assert found.peak_share == pytest.approx(2 * share)
  assert "memory of a core" in report.as_text(found)
  assert "4 chips of 2 cores, 16 on each" in report.as_text(found)
  assert half.memory_bytes == 16 * 2**30


def test_a_chip_without_a_known_clock_has_cycles_only():
  found = estimate(lowered(TPU_LOOP), parse_target("tpu7x:2x2x1"), 64)
  assert (found.milliseconds, found.peak_share) == (None, None)
  assert "0.03 M cycles; this chip's clock is not published" in report.as_text(found)


def test_text():
  lines = report.as_text(estimate(lowered(TPU_LOOP), parse_target("v5e:2x2"), 64)).splitlines()
  assert lines[0] == "images               64 on 4 chips, 16 on each"
  assert "4.00 of 16.0 GiB: arguments 3.00, temporaries 1.00, outputs 1.00" in lines[1]
  assert "1 all-reduce, 0.0655 MB, of which f32 0.0655" in lines[2]
  assert "0.02 ms, 0.03 M cycles at 1.5 GHz" in lines[3]
  assert "1 copy, 1 all-reduce" in lines[4]
  assert "dot_general → bf16[16,128]" in lines[7]
  assert lines[7].endswith("models/loop.py:7")


def test_a_gpu_has_kernels_and_traffic_but_no_time():
  found = estimate(lowered(GPU_LOOP), parse_target("h100:2"), 64)
  assert found.cycles is None
  assert found.kernels == 24
  assert found.traffic_milliseconds == pytest.approx(1e3 * found.traffic_bytes / 3352320000000)
  assert "no step is quicker" in report.as_text(found)


@pytest.mark.parametrize(("text", "target"), [(TPU_LOOP, "v5e:2x2"), (GPU_LOOP, "h100:2")])
def test_json(text: str, target: str):
  content = report.as_json(estimate(lowered(text), parse_target(target), 64))
  assert json.loads(json.dumps(content)) == content
  assert content["target"] == target
  assert content["images_per_chip"] == 64 / content["chips"]
  assert content["alias_bytes"] == 2**30
  assert content["collectives"][0]["kind"] == "all-reduce"
  is_tpu = target.startswith("v")
  assert (content["estimated_ms"] is None) == (not is_tpu)
  assert (content["traffic_bytes"] is None) == is_tpu


def test_a_program_that_is_too_large():
  message = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 18.50G of 15.75G hbm."
  with pytest.raises(OutOfMemoryError, match=r"v5e:2x2: a chip needs 18.50 of 15.75 GiB with 16"):
    estimate(refused(message), parse_target("v5e:2x2"), 64)
  with pytest.raises(OutOfMemoryError, match="a chip has no room with 16 images"):
    estimate(refused("RESOURCE_EXHAUSTED: out of memory"), parse_target("v5e:2x2"), 64)


def test_a_program_that_the_compiler_refuses():
  message = "INTERNAL: Couldn't find output tile sizes\nmore"
  with pytest.raises(CompilerError, match="h100: the compiler refuses the program: INTERNAL: Coul"):
    estimate(refused(message), parse_target("h100"), 64)


def test_text_of_the_largest_batch():
  fit = Fit(96, {64: True, 128: False, 96: True})
  assert report.fit_as_text(fit, 8).startswith("largest batch  96 images, 12 a chip (64 fits, 128 ")
  assert "not even 64 images fit" in report.fit_as_text(Fit(None, {64: False}), 8)
