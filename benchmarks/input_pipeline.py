"""Training batches from JPEGs and part labels: our tf.data pipeline beside Pillow and a DataLoader.

  python -m benchmarks.input_pipeline                  our drawn pedestrians
  python -m benchmarks.input_pipeline --images=DIR     CUHK03-NP: DIR holds cuhk03-np/labeled

Decoding, resizing of image and part labels, flip, padded crop, erasing, identities 16 × 4; the same
images and changes on both sides. Ours leaves images uint8, to be normalised on the device; the
DataLoader is measured that way too, and with float32 images from its workers, which is usual. It
has a worker process a core. Each side has a process of its own, and the page cache holds the files.
"""

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.command_line import positive, require_torch, run, size_argument
from benchmarks.cuhk03_config import cuhk03_config
from benchmarks.input_sides import InputLap
from benchmarks.reporting import Column, header, line, machine, num_cores, write_json
from benchmarks.worker import Worker
from magnifier_jax.config import Config
from magnifier_jax.data.dataset import ReidSplit, load
from magnifier_jax.devices.host_memory import restart_with_huge_pages

_QUIET_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
_SIDES = (
  ("tf.data, uint8", "TensorflowSide", ()),
  ("DataLoader, uint8", "DataLoaderSide", (False,)),
  ("DataLoader, float32", "DataLoaderSide", (True,)),
)
_COLUMNS = (
  Column("", 20),
  Column("img/s", 9, ".1f"),
  Column("a core", 9, ".1f"),
  Column("a CPU s", 9, ".1f"),
  Column("× tf.data", 10, ".3f"),
  Column("by CPU", 8, ".3f"),
)


class InputResult(NamedTuple):
  """What was measured on one side; images a second are of the median turn."""

  side: str
  images_per_second: float
  images_per_core_second: float  # by the clock
  images_per_cpu_second: float  # of all threads and worker processes
  laps: list[InputLap]


def main() -> None:
  """Measures and prints."""
  arguments = _parse_arguments()
  require_torch()
  here = machine("tensorflow-cpu", "torch", "pillow")
  print(", ".join(f"{name} {value}" for name, value in here.items()), flush=True)
  with tempfile.TemporaryDirectory() as folder:
    results = measure(
      input_config(arguments.images, arguments.size),
      Path(folder),
      arguments.rounds,
      arguments.batches,
    )
  print(header(_COLUMNS))
  for result in results:
    print(line(_COLUMNS, _values(result, results[0])))
  if arguments.json:
    records = [
      result._asdict() | {"laps": [lap._asdict() for lap in result.laps]} for result in results
    ]
    write_json(arguments.json, {"machine": here, "sides": records})


def _values(result: InputResult, ours: InputResult) -> tuple[Any, ...]:
  return (
    *result[:4],
    result.images_per_second / ours.images_per_second,
    result.images_per_cpu_second / ours.images_per_cpu_second,
  )


def input_config(images: Path | None, image_size_hw: tuple[int, int]) -> Config:
  """Returns the config of CUHK03-NP's images in a folder, or of drawn ones."""
  config = cuhk03_config("resnet50", image_size_hw, "float32")
  if images is None:
    source = {"dataset": "synthetic_reid/small"}
  else:
    source = {"manual_dir": str(images), "missing_part_labels": "bands"}
  return dataclasses.replace(config, data=dataclasses.replace(config.data, **source))


def measure(config: Config, folder: Path, rounds: int, batches: int) -> list[InputResult]:
  """Measures all sides in turns.

  Args:
    config: of the batches and the data set, which is prepared where it is not yet.
    folder: empty; gets the images as files.
    rounds: turns of each side.
    batches: in a turn.

  Raises:
    UserError: when the images are missing or damaged.
    SideError: when a side fails.
  """
  write_files(load(config.data).train, folder)
  workers = [
    Worker(
      name,
      f"benchmarks.input_sides:{side}",
      config,
      folder,
      *options,
      environment=_QUIET_TENSORFLOW,
    )
    for name, side, options in _SIDES
  ]
  try:
    for worker in workers:
      worker.call("lap", 1)  # imports and graphs
    laps = [[] for _ in workers]
    for number in range(rounds):
      for index in range(len(workers))[:: 1 if number % 2 == 0 else -1]:
        laps[index].append(workers[index].call("lap", batches))
  finally:
    for worker in workers:
      worker.close()
  return [_summary(worker.name, own) for worker, own in zip(workers, laps)]


def _summary(name: str, laps: list[InputLap]) -> InputResult:
  seconds = statistics.median(lap.seconds for lap in laps)
  cpu_seconds = statistics.median(lap.cpu_seconds for lap in laps)
  return InputResult(name, 1 / seconds, 1 / seconds / num_cores(), 1 / cpu_seconds, laps)


def write_files(split: ReidSplit, folder: Path) -> None:
  """Writes a split's images and part labels, as encoded in the data set, and who is on them."""
  for index in range(len(split)):
    encoded = split.encoded(index)
    (folder / f"{index}.image").write_bytes(encoded.image)
    (folder / f"{index}.labels").write_bytes(encoded.part_labels)
  np.save(folder / "person_id.npy", split.person_id)


def _parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--images", type=Path, help="folder that holds cuhk03-np/labeled")
  parser.add_argument("--size", type=size_argument, default=(384, 192), help="height,width")
  parser.add_argument("--rounds", type=positive, default=5, help="turns of each side")
  parser.add_argument("--batches", type=positive, default=20, help="of 64 images, in a turn")
  parser.add_argument("--json", type=Path, help="also write everything here")
  return parser.parse_args()


if __name__ == "__main__":
  restart_with_huge_pages()  # for all sides, as users of a CPU have it
  run(main)
