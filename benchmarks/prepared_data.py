"""How long preparing and opening take as a data set grows. Our side only.

  python -m benchmarks.prepared_data
  python -m benchmarks.prepared_data --rows=10000,100000,1000000 --labels --folder=/scratch

A CSV file lists so many hard links to a few images of 64 × 32 pixels; with `--labels` each has part
labels too. Columns: preparing, opening again in another process with its peak memory, the first
training batch after that, and opening again after the times of all files have changed, so that all
contents are compared. The page cache holds the files. A row of a million takes 5 GB of disk.
"""

import argparse
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.command_line import list_of, positive, run
from benchmarks.reporting import Column, header, line, machine, peak_megabytes, write_json
from benchmarks.worker import Worker
from configs.custom import get_config
from magnifier_jax.config import Config

_ROWS_A_FOLDER = 1000  # and a file; some file systems allow 65,000 links to a file
_IMAGES_A_PERSON = 10
_CAMERAS = 6
_SIZE_HW = (64, 32)
_QUIET_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
_COLUMNS = (
  Column("rows", 9, ",d"),
  Column("prepare s", 9, ".1f"),
  Column("CPU s", 8, ".1f"),
  Column("img/s", 8, ",.0f"),
  Column("peak MB", 8, ".0f"),
  Column("open s", 7, ".2f"),
  Column("CPU s", 8, ".2f"),
  Column("peak MB", 8, ".0f"),
  Column("1st batch s", 11, ".2f"),
  Column("times changed s", 15, ".2f"),
)


class Preparation(NamedTuple):
  """What was measured at one size."""

  rows: int
  prepare_seconds: float
  prepare_cpu_seconds: float  # of all processes
  images_per_second: float
  prepare_peak_megabytes: float  # of the process that writes
  open_seconds: float
  open_cpu_seconds: float
  open_peak_megabytes: float
  first_batch_seconds: float
  times_changed_seconds: float


class DataSide:
  """Opens a data set in a process of its own."""

  def __init__(self, config: Config):
    self._config = config
    self._dataset = None

  def load(self) -> tuple[float, float, float]:
    """Returns seconds by the clock, of all processes' CPU, and the peak in MB."""
    from magnifier_jax.data import dataset

    start, cpu_start = time.perf_counter(), _cpu_seconds()
    self._dataset = dataset.load(self._config.data)
    return time.perf_counter() - start, _cpu_seconds() - cpu_start, peak_megabytes()

  def first_batch(self) -> float:
    """Returns the seconds to the first training batch, TensorFlow already imported."""
    from magnifier_jax.data import pipeline

    start = time.perf_counter()
    next(pipeline.train_batches(self._dataset, self._config))
    return time.perf_counter() - start


def _cpu_seconds() -> float:
  usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
  return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
  """Measures, prints a table, and writes JSON if asked to."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--rows", type=list_of(positive), default=[10_000, 100_000, 1_000_000])
  parser.add_argument("--labels", action="store_true", help="part labels too, else bands")
  parser.add_argument("--folder", type=Path, help="of the temporary files")
  parser.add_argument("--json", type=Path, help="also write everything here")
  arguments = parser.parse_args()
  here = machine("tensorflow-cpu", "tensorflow-datasets", "array_record", "pillow")
  print(", ".join(f"{name} {value}" for name, value in here.items()))
  print(header(_COLUMNS), flush=True)
  records = []
  for rows in arguments.rows:
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
      records.append(measure(Path(folder), rows, arguments.labels))
    print(line(_COLUMNS, records[-1]), flush=True)
  if arguments.json:
    write_json(arguments.json, {"machine": here, "sizes": [record._asdict() for record in records]})


def measure(folder: Path, rows: int, labels: bool) -> Preparation:
  """Writes a data set, and measures it.

  Args:
    folder: empty.
    rows: images.
    labels: whether they have part labels.

  Raises:
    SideError: when a process fails.
  """
  originals = write_images(folder, rows, labels)
  config = get_config("small")
  config.data.dataset = "image_list/big"
  config.data.manual_dir = str(folder)
  config.data.data_dir = str(folder / "prepared")
  config.data.missing_part_labels = "refuse" if labels else "bands"
  config = Config.from_config_dict(config)
  _wait_until_settled()
  with _side(config) as side:
    prepare_seconds, prepare_cpu_seconds, prepare_peak = side.call("load")
  with _side(config) as side:
    open_seconds, open_cpu_seconds, open_peak = side.call("load")
    side.call("first_batch")  # imports and graphs
    first_batch_seconds = side.call("first_batch")
  for file in originals:
    os.utime(file, (1, 1))
  _wait_until_settled()
  with _side(config) as side:
    times_changed_seconds, *_ = side.call("load")
  shutil.rmtree(folder / "prepared")
  return Preparation(
    rows,
    prepare_seconds,
    prepare_cpu_seconds,
    rows / prepare_seconds,
    prepare_peak,
    open_seconds,
    open_cpu_seconds,
    open_peak,
    first_batch_seconds,
    times_changed_seconds,
  )


def _side(config: Config) -> Worker:
  return Worker("ours", "benchmarks.prepared_data:DataSide", config, environment=_QUIET_TENSORFLOW)


def _wait_until_settled() -> None:
  time.sleep(3)  # the times of files that were written within two seconds are not trusted


def write_images(folder: Path, rows: int, labels: bool) -> list[Path]:
  """Writes `big/images.csv` and what it lists; returns the files that all others are links to."""
  random = np.random.default_rng(0)
  originals = []
  lines = ["image,person,camera,split"]
  for start in range(0, rows, _ROWS_A_FOLDER):
    place = f"{start // _ROWS_A_FOLDER:05d}"
    pixels = random.integers(0, 256, (*_SIZE_HW, 3), np.uint8)
    parts = random.integers(0, 8, _SIZE_HW, np.uint8)
    files = [(folder / "big" / place, ".jpg", pixels)]
    if labels:
      files.append((folder / "big_ps_label" / place, ".png", parts))
    numbers = range(start, min(rows, start + _ROWS_A_FOLDER))
    for top, ending, content in files:
      top.mkdir(parents=True)
      originals.append(top / f"{start:07d}{ending}")
      Image.fromarray(content).save(originals[-1])
      for number in numbers[1:]:
        os.link(originals[-1], top / f"{number:07d}{ending}")
    lines += [_row(f"{place}/{number:07d}.jpg", number, rows) for number in numbers]
  (folder / "big" / "images.csv").write_text("\n".join(lines) + "\n")
  return originals


def _row(path: str, number: int, rows: int) -> str:
  is_test = number >= 0.8 * rows
  split = "train" if not is_test else "query" if number % _IMAGES_A_PERSON == 0 else "gallery"
  return f"{path},{number // _IMAGES_A_PERSON},{number % _CAMERAS + 1},{split}"


if __name__ == "__main__":
  run(main)
