"""What TPUs' compiler expects a training step to cost, beside that of a plain ResNet-50.

  python -m benchmarks.tpu_cost
  python -m benchmarks.tpu_cost --cases=v5e:1/32 --networks=ours --json=cost.json

A case is a target and the images on each of its chips. Needs libtpu and no TPU; each case and
network takes two to eight minutes to compile.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.cuhk03_config import NUM_PEOPLE, cuhk03_config
from benchmarks.reporting import Column, header, line, write_json
from magnifier_jax.compilers.targets import open_devices, parse_target, use_no_accelerator

_IMAGE_SIZE_HW = (384, 192)
_CASES = "v5e:1/32,v5e:1/128,v5e:2x4/8"
_COLUMNS = (
  Column("network", 10),
  Column("target", 8),
  Column("images a chip", 13, ".0f"),
  Column("M cycles", 9, ".2f"),
  Column("ms", 8, ".2f"),
  Column("% of peak", 9, ".1f"),
  Column("temporaries, GiB", 16, ".2f"),
  Column("compiled in, s", 14, ".0f"),
)


def main() -> None:
  """Compiles each case for each network, and prints a line for each."""
  arguments = _parser().parse_args()
  results = []
  print(header(_COLUMNS), flush=True)
  for case in arguments.cases.split(","):
    for network in arguments.networks.split(","):
      found = _cost(network, case, arguments.dtype)
      results.append({"network": network, "dtype": arguments.dtype, **found})
      share = found["peak_share"]
      values = (
        network,
        found["target"],
        found["images_per_chip"],
        found["estimated_cycles"] / 1e6,
        found["estimated_ms"],
        None if share is None else 100 * share,
        found["temporaries_bytes"] / 2**30,
        found["compile_seconds"],
      )
      print(line(_COLUMNS, values), flush=True)
      if arguments.json:
        write_json(arguments.json, results)


def _cost(network: str, case: str, dtype: str) -> dict[str, Any]:
  """Returns an estimate as `tools.compile_for` writes it."""
  # Not above: JAX must not start before `use_no_accelerator`.
  from benchmarks.plain_resnet50 import lower_plain_step
  from magnifier_jax.compilers.estimate import estimate
  from magnifier_jax.compilers.program import Program
  from magnifier_jax.compilers.report import as_json
  from magnifier_jax.devices.mesh import data_mesh

  name, _, per_chip = case.partition("/")
  target = parse_target(name)
  mesh, images = data_mesh(open_devices(target)), int(per_chip) * target.chips
  if network == "ours":
    config = cuhk03_config("resnet50", _IMAGE_SIZE_HW, dtype)
    lowered = Program("train", config, NUM_PEOPLE, mesh).with_images(images).lower()
  else:
    lowered = lower_plain_step(images, _IMAGE_SIZE_HW, dtype, mesh)
  return as_json(estimate(lowered, target, images))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--cases", default=_CASES, help="TARGET/IMAGES,…; default: %(default)s")
  parser.add_argument("--networks", default="ours,plain", help="default: %(default)s")
  parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
  parser.add_argument("--json", type=Path, help="also write the results there")
  return parser


if __name__ == "__main__":
  use_no_accelerator()
  main()
