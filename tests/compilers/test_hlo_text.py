"""Reading a compiled program's text."""

import pytest

from magnifier_jax.compilers.hlo_text import Array, SourceLine, arrays_of, bits_of, parse
from tests.compilers.stored_programs import GPU_LOOP, TPU_LOOP


@pytest.mark.parametrize(
  ("dtype", "bits"), [("pred", 8), ("bf16", 16), ("f8e4m3fn", 8), ("s4", 4), ("token", 0)]
)
def test_bits(dtype: str, bits: int):
  assert bits_of(dtype) == bits


def test_arrays_of_a_tuple():
  shape = "(f32[16,128]{1,0:T(8,128)S(1)}, /*index=1*/u32[]{:S(2)}, (bf16[<=4]{0}, token[]))"
  arrays = arrays_of(shape)
  assert [str(array) for array in arrays] == ["f32[16,128]", "u32[]", "bf16[4]", "token[]"]
  assert [array.bytes for array in arrays] == [8192, 4, 8, 0]


def test_a_tpu_program():
  module = parse(TPU_LOOP)
  entry = module.computations[module.entry]
  assert entry["fusion"].opcode == "fusion"
  assert entry["fusion"].operands == ("copy-done", "get-tuple-element.18")
  assert entry["fusion"].result == (Array("f32", (128, 128)),)
  assert entry["fusion"].called("calls") == "fused_computation.1"
  assert entry["while.9"].called("body") == "wide.region_0.1_spmd.sunk"
  assert entry["copy-start"].result_bytes == 2 * 16 * 128 * 4 + 4
  assert entry["constant.3.clone"].arguments == "0"


@pytest.mark.parametrize(("text", "times"), [(TPU_LOOP, 1), (GPU_LOOP, 1)])
def test_lines_of_code(text: str, times: int):
  module = parse(text)
  lines = {
    module.source(instruction)[0]
    for instruction in module.instructions()
    if "dot_general" in instruction.attributes
  }
  assert lines == {SourceLine("/package/loop.py", 7), SourceLine("/package/loop.py", 10)}
  entry = module.computations[module.entry]
  root = list(entry.values())[-1]
  assert module.source(root) == (
    SourceLine("/package/loop.py", 10),
    SourceLine("/package/make.py", 11),
  )


def test_text_that_is_no_program():
  with pytest.raises(ValueError, match="no entry computation"):
    parse("HloModule nothing")
