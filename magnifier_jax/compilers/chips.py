"""TPUs and GPUs as their makers and compilers describe them."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

_GIB = 2**30


class TpuChip(NamedTuple):
  """One generation of Cloud TPUs; all but the last two fields are per chip."""

  peak_flops: float  # a second, products of bfloat16
  memory_bytes: int
  bandwidth: float  # bytes a second
  clock_hz: float | None  # of the cycles that the compiler counts; None: unknown
  devices_per_chip: int = 1  # 2: each of the chip's cores is a device of JAX
  configuration: str = ""  # of libtpu; '' is its own default


# Peak, memory and bandwidth: docs.cloud.google.com/tpu/docs/NAME. Clocks of v2 to v4: Jouppi et
# al., "TPU v4" (ISCA 2023), table 4. That of v5e and v5p follows from the peak, which is 2 × 128² a
# cycle for each matrix unit. At 1.75 GHz v6e's compiler expects Adam's update at that chip's memory
# bandwidth, as at 1.5 GHz v5e's does.
TPU_CHIPS = {
  "v2": TpuChip(46e12, 16 * _GIB, 700e9, 0.7e9, devices_per_chip=2),
  "v3": TpuChip(123e12, 32 * _GIB, 900e9, 0.94e9, devices_per_chip=2),
  "v4": TpuChip(275e12, 32 * _GIB, 1228e9, 1.05e9, configuration="megacore"),
  "v5e": TpuChip(197e12, 16 * _GIB, 819e9, 1.5e9),
  "v5p": TpuChip(459e12, 95 * _GIB, 2765e9, 1.75e9),
  "v6e": TpuChip(918e12, 32 * _GIB, 1640e9, 1.75e9),
  "tpu7x": TpuChip(2307e12, 192 * _GIB, 7380e9, None, devices_per_chip=2),
}


class GpuCard(NamedTuple):
  """One kind of GPU, in the words of XLA's description of a device."""

  description: str  # as the driver calls it
  compute_capability: tuple[int, int]
  core_count: int  # streaming multiprocessors
  fpus_per_core: int
  clock_rate_ghz: float
  memory_bandwidth: int  # bytes a second
  device_memory_size: int  # bytes
  l2_cache_size: int  # bytes
  shared_memory_per_core: int  # bytes


# As the cards report themselves to XLA; data sheets round.
GPU_CARDS = {
  "a100": GpuCard(
    "NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 1.41, 2039040000000, 85100068864, 41943040, 167936
  ),
  "h100": GpuCard(
    "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 1.98, 3352320000000, 84942979072, 52428800, 233472
  ),
  "h200": GpuCard(
    "NVIDIA H200", (9, 0), 132, 128, 1.98, 4800000000000, 151397597184, 52428800, 233472
  ),
  "b200": GpuCard(
    "NVIDIA B200", (10, 0), 148, 128, 1.965, 7672320000000, 191514411008, 132644864, 233472
  ),
}

_RESERVED_SHARED_MEMORY = 1024  # of each block, by CUDA
_CUDNN_VERSION = {"major": 9, "minor": 10, "patch": 0}


def target_config(card: GpuCard) -> str:
  """Returns a card as text of XLA's `GpuTargetConfigProto`."""
  device = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 49152,
    "shared_memory_per_core": card.shared_memory_per_core,
    "shared_memory_per_block_optin": card.shared_memory_per_core - _RESERVED_SHARED_MEMORY,
    "threads_per_core_limit": 2048,
    "core_count": card.core_count,
    "fpus_per_core": card.fpus_per_core,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
    "clock_rate_ghz": card.clock_rate_ghz,
    "memory_bandwidth": card.memory_bandwidth,
    "device_memory_size": card.device_memory_size,
    "l2_cache_size": card.l2_cache_size,
  }
  major, minor = card.compute_capability
  config = {
    "gpu_device_info": {**device, "cuda_compute_capability": {"major": major, "minor": minor}},
    "platform_name": "CUDA",
    "dnn_version_info": _CUDNN_VERSION,
    "device_description_str": card.description,
  }
  return _as_proto_text(config)


def _as_proto_text(fields: Mapping[str, Any]) -> str:
  parts = []
  for name, value in fields.items():
    if isinstance(value, Mapping):
      parts.append(f"{name} {{ {_as_proto_text(value)} }}")
    else:
      parts.append(f"{name}: {json.dumps(value)}")
  return " ".join(parts)
