"""Costs by kind of operation, from a profile of a program of known parts."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks.trace_costs import _kinds, costs_by_kernel, costs_by_kind

HLO = """\
HloModule jit_step

%fused_computation (param_0: f32[4,8]) -> f32[4,8] {
  %param_0 = f32[4,8]{1,0} parameter(0)
  %c.1 = f32[4,8]{1,0} dot(%param_0, %param_0), metadata={op_name="jit(f)/transpose(jvp(g))/dot"}
  ROOT %add.1 = f32[4,8]{1,0} add(%c.1, %param_0)
}

%fused_computation.1 (param_0: f32[4,8]) -> f32[4,8] {
  ROOT %tanh = f32[4,8]{1,0} tanh(%param_0), metadata={op_name="jit(f)/jvp(g)/tanh"}
}

ENTRY %main (x: f32[4,8]) -> (f32[4,8], u8[16]) {
  %x = f32[4,8]{1,0} parameter(0)
  %fusion = f32[4,8]{1,0} fusion(%x), kind=kOutput, calls=%fused_computation
  %fusion.1 = f32[4,8]{1,0} fusion(%x), kind=kLoop, calls=%fused_computation.1
  %conv.2 = (f32[4,8]{1,0}, u8[16]{0}) custom-call(%x), custom_call_target="__cudnn$convForward"
  ROOT %copy.3 = f32[4,8]{1,0} copy(%fusion)
}
"""


def test_a_fusion_is_its_heaviest_part_and_a_call_its_target():
  kinds = _kinds(HLO)
  assert kinds["fusion"] == "dot, backward"
  assert kinds["fusion.1"] == "elementwise, forward"
  assert kinds["conv.2"] == "__cudnn$convForward"
  assert kinds["copy.3"] == "copy"


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
  folder = tmp_path_factory.mktemp("profile")
  weights = jnp.ones((256, 256))
  step = jax.jit(jax.grad(lambda w: jnp.tanh(w @ w).sum())).lower(weights).compile()
  step(weights).block_until_ready()
  with jax.profiler.trace(folder):
    for _ in range(2):
      step(weights).block_until_ready()
  return folder, step.as_text()


def test_products_of_a_step_are_counted(profiled: tuple[Path, str]):
  costs = {cost.kind: cost for cost in costs_by_kind(*profiled, steps=2)}
  products = [cost for kind, cost in costs.items() if kind.startswith("dot")]
  assert sum(cost.calls for cost in products) == 3  # one forward, two of the gradient
  assert sum(cost.share for cost in costs.values()) == pytest.approx(1.0)
  assert all(cost.milliseconds > 0 for cost in products)


def test_kernels_of_a_step_name_the_operation_that_they_come_from(profiled: tuple[Path, str]):
  kernels = costs_by_kernel(*profiled, steps=2)
  assert [k.milliseconds for k in kernels] == sorted(
    (k.milliseconds for k in kernels), reverse=True
  )
  assert sum(kernel.share for kernel in kernels) == pytest.approx(1.0)
  assert {kernel.calls for kernel in kernels} == {1.0}
  operations = [kernel.operation for kernel in kernels]
  assert any("/jvp" in name and name.endswith("dot_general") for name in operations)
  assert any("transpose(jvp" in name for name in operations)
