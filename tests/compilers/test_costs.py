"""What is read out of a compiled program."""

import re

import pytest

from magnifier_jax.compilers import costs, hlo_text
from magnifier_jax.compilers.costs import Collective
from tests.compilers.stored_programs import GPU_LOOP, TPU_LOOP


def test_cycles_of_a_loop_count_at_every_turn():
  found = costs.cycle_costs(hlo_text.parse(TPU_LOOP))
  assert sum(cost.amount for cost in found) == 5 * (2080 + 1832) + 1849 + 2094 + 288 + 2227
  dearest = found[0]
  assert (dearest.amount, dearest.times) == (5 * 2080, 5)
  assert dearest.op_name == "jit(step)/while/body/closed_call/dot_general"
  assert dearest.source[0].line == 7


def test_what_has_no_cycles_is_named():
  found = costs.without_estimate(hlo_text.parse(TPU_LOOP))
  assert found == {"copy": 1, "all-reduce": 1}  # an asynchronous copy; not the loop's counter


@pytest.mark.parametrize("text", [TPU_LOOP, GPU_LOOP])
def test_collectives(text: str):
  [found] = costs.collectives(hlo_text.parse(text))
  assert found == Collective("all-reduce", 1, 128 * 128 * 4, {"f32": 128 * 128 * 4})


def test_copies_of_a_collective_are_one():
  line = re.search(r"^.* all-reduce\(.*$", TPU_LOOP, re.MULTILINE)[0]
  copy = line.replace("%all-reduce = ", "%all-reduce.clone = ")
  other = copy.replace("%all-reduce.clone", "%other").replace("channel_id=1", "channel_id=2")
  text = TPU_LOOP.replace(line, "\n".join([line, copy, other]))
  [found] = costs.collectives(hlo_text.parse(text))
  assert (found.count, found.bytes) == (2, 2 * 128 * 128 * 4)


def test_a_gathers_bytes_are_those_of_its_result():
  text = """
ENTRY %main (x: f32[8,4]) -> f32[32,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %start = (f32[8,4]{1,0}, f32[32,4]{1,0}) all-gather-start(%x), channel_id=3, dimensions={0}
  ROOT %done = f32[32,4]{1,0} all-gather-done(%start)
}
"""
  [found] = costs.collectives(hlo_text.parse(text))
  assert found == Collective("all-gather", 1, 32 * 4 * 4, {"f32": 32 * 4 * 4})


def test_kernels_and_traffic_of_a_gpu():
  module = hlo_text.parse(GPU_LOOP)
  found = {cost.instruction.name: cost for cost in costs.traffic_costs(module)}
  update = found["wrapped_subtract"]
  assert update.amount == 3 * 128 * 128 * 4  # two operands and the result
  assert not any("all-reduce" in name for name in found)
  in_loop = [cost for cost in found.values() if cost.times == 5]
  assert in_loop
  single = sum(cost.amount // cost.times for cost in found.values())
  assert sum(cost.amount for cost in found.values()) > single


def test_a_loop_of_unknown_length_turns_once():
  text = TPU_LOOP.replace("s32[]{:T(128)} constant(5)", "s32[]{:T(128)} parameter(1)")
  found = costs.cycle_costs(hlo_text.parse(text))
  assert {cost.times for cost in found} == {1}


def test_all_branches_of_a_conditional_count():
  text = """
%one (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  ROOT %r = f32[4]{0} negate(%a), backend_config={"estimated_cycles":"7"}
}

%two (b: f32[4]) -> f32[4] {
  %b = f32[4]{0} parameter(0)
  ROOT %q = f32[4]{0} negate(%b), backend_config={"estimated_cycles":"5"}
}

ENTRY %main (i: s32[], x: f32[4]) -> f32[4] {
  %i = s32[] parameter(0)
  %x = f32[4]{0} parameter(1)
  ROOT %c = f32[4]{0} conditional(%i, %x, %x), branch_computations={%one, %two}
}
"""
  assert sum(cost.amount for cost in costs.cycle_costs(hlo_text.parse(text))) == 12
