"""The parts of `benchmarks.accelerator`, each run in a process of its own.

A part writes what it has found as soon as it has it, so that little is lost when it is cut off.
"""

import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accelerator_plan import Part
from benchmarks.command_line import comparison_record, side_record
from benchmarks.comparison import compare, jax_worker, measure_alone, probe_variants
from benchmarks.side import Lap, Work
from benchmarks.worker import SideError, Worker
from magnifier_jax.errors import UserError
from magnifier_jax.files.whole_file import write_json

_PROFILED_STEPS = {"cpu": 1, "gpu": 10, "tpu": 10}
_DEAREST = 10
_MEMORY_STEPS = 5
_PLAIN_TWIN = ["channels_last"]  # where the variants that are asked for fail


class Order(NamedTuple):
  """What a part is told; JSON carries it into its process."""

  part: Part
  rounds: int  # turns of each side
  variants: list[str]  # of the twin
  result: Path

  def to_json(self) -> str:
    """Returns what `from_json` reads."""
    part = {"kind": self.part.kind, "work": self.part.work and self.part.work._asdict()}
    return json.dumps(self._asdict() | {"part": part, "result": str(self.result)})

  @classmethod
  def from_json(cls, text: str) -> "Order":
    """Reads what `to_json` wrote."""
    fields = json.loads(text)
    work = fields["part"]["work"]
    if work is not None:
      work = Work(**work | {"image_size_hw": tuple(work["image_size_hw"])})
    part = Part(fields["part"]["kind"], work)
    return cls(**fields | {"part": part, "result": Path(fields["result"])})


class Findings(dict[str, Any]):
  """What a part has found so far, in a file as well."""

  def __init__(self, file: Path):
    super().__init__()
    self._file = file

  def add(self, **found: Any) -> None:
    """Keeps what was found."""
    self.update(found)
    write_json(self._file, self)


def machine(findings: Findings) -> None:
  """Finds the device, and the versions of what computes."""
  import jax

  from benchmarks.reporting import machine as describe

  packages = [name for name in ("jax", "jaxlib", "flax", "optax", "torch") if _is_there(name)]
  device = jax.devices()[0]
  findings.add(**describe(*packages), platform=device.platform, device=device.device_kind)
  memory = (device.memory_stats() or {}).get("bytes_limit")
  findings.add(devices=jax.device_count(), memory_bytes=memory, jax_backend=_backend(device))


def _is_there(package: str) -> bool:
  return importlib.util.find_spec(package) is not None


def _backend(device: Any) -> str:
  return " ".join(device.client.platform_version.split())


def parity(order: Order, findings: Findings) -> None:
  """Compares outputs, losses, gradients, statistics and updates with the authors' numbers.

  Raises:
    UserError: when they do not agree, after all of them are in the findings.
  """
  import jax

  from tests import golden_numbers as golden

  # TPUs have no float64, and float32 cannot agree after an update.
  case = golden.SMALL32 if jax.devices()[0].platform == "tpu" else golden.SMALL64
  findings.add(dtype=case.dtype, precision="highest", fixture="8 noise images of 128 × 64")
  with jax.enable_x64(case.dtype == "float64"), jax.default_matmul_precision("highest"):
    ours = golden.compute(case)
  disagreeing = _add_deviations(
    findings,
    outputs=golden.output_deviations(case, ours),
    losses=golden.loss_deviations(case, ours),
    gradients=golden.gradient_deviations(case, ours),
    statistics=golden.statistics_deviations(case, ours),
    updates=golden.update_deviations(case, ours),
  )
  if disagreeing:
    raise UserError(f"not the authors' numbers: {', '.join(disagreeing)}")


def _add_deviations(findings: Findings, **groups: Any) -> list[str]:
  """Keeps the worst deviation of each group; returns the groups that do not agree."""
  for name, group in groups.items():
    deviations = list(group)
    if not deviations:
      continue
    worst = max(deviations, key=lambda deviation: deviation.found / deviation.allowed)
    # Not >: a number that is none is neither.
    agrees = all(deviation.found <= deviation.allowed for deviation in deviations)
    findings.add(**{name: {"numbers": len(deviations), "agrees": agrees, **worst._asdict()}})
  return [name for name in groups if not findings.get(name, {"agrees": True})["agrees"]]


def comparison(order: Order, findings: Findings) -> None:
  """Measures our side and the twin in turns; our side alone where the twin does not run."""
  work = order.part.work
  on_warm = _note_warm_side(findings)
  reason = _no_twin(work)
  for variants in [] if reason else [order.variants, _PLAIN_TWIN]:
    try:
      found = compare(work, variants, order.rounds, on_warm=on_warm)
    except (SideError, UserError) as error:  # torch.compile fails, PyTorch without this device
      reason = str(error).strip()
      print(reason, flush=True)  # into the log
      continue
    findings.add(**comparison_record(found))
    return
  result = measure_alone(work, order.rounds, on_warm)
  reason = reason.splitlines()[-1]
  findings.add(work=work._asdict(), jax=side_record(result, work), without_twin=reason)


def _no_twin(work: Work) -> str | None:
  if work.device == "tpu":
    return "PyTorch does not compute on TPUs"
  return None if _is_there("torch") else "PyTorch is not installed"


def _note_warm_side(findings: Findings) -> Callable[[Worker, Lap], None]:
  """A side that has compiled has a first time, should the other never get there."""

  def note(side: Worker, lap: Lap) -> None:
    findings.add(**{f"first_{side.name.lower()}_seconds": lap.seconds})
    if side.name == "JAX":
      findings.add(compilation=side.call("compilation")._asdict())

  return note


def profile(order: Order, findings: Findings) -> None:
  """Sums up a profile of our step; its program is in the cache, so that is timed as well."""
  work = order.part.work
  steps = _PROFILED_STEPS[work.device]
  with jax_worker(work) as ours, tempfile.TemporaryDirectory() as folder:
    _note_warm_side(findings)(ours, ours.call("warm_up"))
    by_kind = ours.call("trace", Path(folder), steps)
    kernels = ours.call("kernels", Path(folder), steps)
  findings.add(
    kernels=[kernel._asdict() for kernel in kernels[:_DEAREST]],
    by_kind=[cost._asdict() for cost in by_kind[:_DEAREST]],
    milliseconds=sum(cost.milliseconds for cost in by_kind),
    launches=sum(cost.calls for cost in by_kind),
  )


def memory(order: Order, findings: Findings) -> None:
  """Measures memory and time of our step, as it is and rematerialized."""
  for name, rematerialize in (("plain", False), ("rematerialized", True)):
    with jax_worker(order.part.work._replace(rematerialize=rematerialize)) as ours:
      ours.call("warm_up")
      laps = [ours.call("lap", _MEMORY_STEPS).seconds for _ in range(order.rounds)]
      found = ours.call("compilation")._asdict() | {
        "peaks": ours.call("peaks")._asdict(),
        "seconds": statistics.median(laps),
      }
      findings.add(**{name: found})


def variants(order: Order, findings: Findings) -> None:
  """Measures the twin alone in each of its variants."""
  if reason := _no_twin(order.part.work):
    raise UserError(reason)
  found = []

  def note(probe: Any) -> None:
    found.append(probe._asdict())
    findings.add(probes=found)

  probe_variants(order.part.work, order.variants, note)


_PARTS = {
  "parity": parity,
  "comparison": comparison,
  "profile": profile,
  "memory": memory,
  "variants": variants,
}


def main(arguments: Sequence[str]) -> None:
  """Runs a part: `machine FILE`, or an `Order`."""
  if arguments[0] == "machine":
    machine(Findings(Path(arguments[1])))
    return
  order = Order.from_json(arguments[0])
  _PARTS[order.part.kind](order, Findings(order.result))


if __name__ == "__main__":
  try:
    main(sys.argv[1:])
  except UserError as error:
    sys.exit(f"error: {error}")
