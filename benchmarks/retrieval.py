"""What using a network costs beside the network itself, and how fast a gallery is. Our side only.

  python -m benchmarks.retrieval --network=runs/synthetic
  python -m benchmarks.retrieval --network=runs/cuhk03 --images=FOLDER --rows=100000

Embedding: images a second from files to vectors, beside the same network on pixels that lie ready;
the two take turns, and the median of `--rounds` counts. Memory: the peak while `--files` and ten
times as many files are decoded and handed to a network that does nothing. Gallery: `--rows` random
vectors of 4,096 numbers, appended 1,000 at a time; then searches for one query and for 1,000,
beside the matrix product that they need. The page cache holds the files.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.command_line import positive, run
from benchmarks.reporting import forget_peak, machine, peak_megabytes, write_json
from magnifier_jax.evaluation.embedding import l2_normalize
from magnifier_jax.files.user_path import user_path
from magnifier_jax.retrieval.embedded import EmbeddedImages
from magnifier_jax.retrieval.embedder import BATCH_SIZE, Embedder, load
from magnifier_jax.retrieval.gallery import Gallery
from magnifier_jax.retrieval.listed_images import list_images

_APPENDED = 1000  # rows
_QUERIES = 1000
_BRANCHES = {"global": 2048, "adversarial": 1024, "fusion": 1024}
_SIZE_HW = (256, 110)  # of an image file; real crops of people vary around this
_SEARCHES = 7


class _Nothing:
  """An `EmbeddingNetwork` that does nothing."""

  description = "nothing"
  image_size_hw = (384, 192)
  branches = _BRANCHES
  weights_sha256 = "0" * 64
  thresholds = None

  def embed_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns vectors that are all alike."""
    return {name: np.ones((len(images), width), np.float32) for name, width in _BRANCHES.items()}


def main() -> None:
  """Measures, prints lines, and writes JSON if asked to."""
  arguments = _arguments()
  here = machine("jax", "numpy", "pillow", "pyarrow")
  print(", ".join(f"{name} {value}" for name, value in here.items()), flush=True)
  measured: dict[str, float] = {}

  def report(name: str, value: float, unit: str) -> None:
    measured[name] = value
    print(f"{name:<58}{value:>12,.3f} {unit}", flush=True)

  with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
    files = _files(arguments, Path(folder))
    if arguments.network is not None:
      _measure_embedding(load(arguments.network), files, arguments.rounds, report)
    _measure_memory(files, report)
    _measure_gallery(Path(folder) / "gallery", arguments.rows, report)
  if arguments.json:
    write_json(arguments.json, {"machine": here, "measured": measured})


def _measure_embedding(
  embedder: Embedder, files: Sequence[str], rounds: int, report: Callable
) -> None:
  count = len(files) // BATCH_SIZE * BATCH_SIZE  # whole batches, as the network alone has them
  files = files[:count]
  size_hw = embedder.network.image_size_hw
  batch = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, *size_hw, 3), np.uint8)
  embedder.network.embed_batch(batch)  # is compiled

  def bare() -> None:
    for _ in range(count // BATCH_SIZE):
      embedder.network.embed_batch(batch)

  ways = {"the network alone": bare, "embed, from files": lambda: _exhaust(embedder.stream(files))}
  seconds: dict[str, list[float]] = {name: [] for name in ways}
  for _ in range(rounds):
    for name, way in ways.items():
      seconds[name].append(_seconds(way))
  rates = {name: count / statistics.median(taken) for name, taken in seconds.items()}
  for name, rate in rates.items():
    report(name, rate, "images/s")
  alone, embedding = rates.values()
  report("embed, from files, of the network alone", 100 * embedding / alone, "%")


def _measure_memory(files: Sequence[str], report: Callable) -> None:
  embedder = Embedder(_Nothing())
  _exhaust(embedder.stream(files))
  for times in (1, 10):
    forget_peak()
    start = time.perf_counter()
    _exhaust(embedder.stream(path for _ in range(times) for path in files))
    rate = times * len(files) / (time.perf_counter() - start)
    report(f"decode {times * len(files):,} files to 384 × 192", rate, "images/s")
    report(f"peak memory with {times * len(files):,} files", peak_megabytes(), "MB")


def _measure_gallery(folder: Path, rows: int, report: Callable) -> None:
  gallery = Gallery.create(folder, _Nothing())
  appends = []
  for part in _random_images(rows):
    appends.append(_seconds(lambda part=part: gallery.add(part, camera=1, person=7)))
  report(f"append {_APPENDED:,} rows, median", statistics.median(appends), "s")
  report(f"append {_APPENDED:,} rows, slowest", max(appends), "s")
  report(f"open {rows:,} rows", _seconds(lambda: Gallery.open(folder).shards), "s")
  gallery = Gallery.open(folder)
  queries = np.array(gallery.shards[0][:_QUERIES])
  first = _seconds(lambda: gallery.search(queries[:1]))
  report("search 1 query, the first time", 1000 * first, "ms")
  one = [_seconds(lambda: gallery.search(queries[:1])) for _ in range(_SEARCHES)]
  report("search 1 query, median", 1000 * statistics.median(one), "ms")
  filtered = [
    _seconds(lambda: gallery.search(queries[:1], exclude_camera=2)) for _ in range(_SEARCHES)
  ]
  report("search 1 query with a filter, median", 1000 * statistics.median(filtered), "ms")
  product, search = [], []
  for _ in range(3):  # taking turns
    product.append(_seconds(lambda: [queries @ shard.T for shard in gallery.shards]))
    search.append(_seconds(lambda: gallery.search(queries)))
  report(f"the product for {_QUERIES:,} queries, median", statistics.median(product), "s")
  report(f"search {_QUERIES:,} queries, median", statistics.median(search), "s")


def _random_images(rows: int) -> Iterator[EmbeddedImages]:
  """Yields random vectors, `_APPENDED` at a time."""
  random = np.random.default_rng(0)
  for start in range(0, rows, _APPENDED):
    count = min(_APPENDED, rows - start)
    vectors = random.standard_normal((count, sum(_BRANCHES.values())), np.float32)
    yield EmbeddedImages(
      whole=l2_normalize(vectors),
      branch_widths=_BRANCHES,
      position=np.arange(count),
      path=tuple(f"/data/people/camera1/{start + i:08}.jpg" for i in range(count)),
      sha256=tuple(random.bytes(32).hex() for _ in range(count)),
      turned=np.zeros(count, bool),
      failed=(),
      weights_sha256=_Nothing.weights_sha256,
    )


def _files(arguments: argparse.Namespace, folder: Path) -> list[str]:
  """Returns image files, the user's or drawn ones, as many as asked for."""
  if arguments.images is not None:
    paths = [image.path for image in list_images(arguments.images).images]
  else:
    random = np.random.default_rng(0)
    paths = [str(folder / f"{i:04}.jpg") for i in range(min(500, arguments.files))]
    for path in paths:
      coarse = Image.fromarray(random.integers(0, 256, (16, 8, 3), np.uint8))
      image = coarse.resize(_SIZE_HW[::-1], Image.Resampling.BICUBIC)
      noise = random.normal(0, 6, (*_SIZE_HW, 3))
      pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
      Image.fromarray(pixels).save(path, quality=90)
  return [paths[i % len(paths)] for i in range(arguments.files)]


def _exhaust(parts: Iterator[EmbeddedImages]) -> None:
  for part in parts:
    assert not part.failed


def _seconds(work: Callable[[], object]) -> float:
  start = time.perf_counter()
  work()
  return time.perf_counter() - start


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--network", type=user_path, help="a workdir; without one, embedding is not measured")
  add("--images", type=user_path, help="a folder of images; default: drawn ones")
  add("--files", type=positive, default=1024, help="files to embed; default: %(default)s")
  add("--rounds", type=positive, default=3, help="default: %(default)s")
  add("--rows", type=positive, default=100_000, help="of the gallery; default: %(default)s")
  add("--folder", type=Path, help="of the temporary files")
  add("--json", type=Path, help="also write everything here")
  return parser.parse_args()


if __name__ == "__main__":
  run(main)
