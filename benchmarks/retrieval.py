"""Galleries: the memory of embedding into one, and how fast one is. Our side only.

  python -m benchmarks.retrieval
  python -m benchmarks.retrieval --files=20000 --rows=20000 --indexed=20000

Memory: the peak of a process that does all that `tools.embed` does, with a network that does
nothing, for 1,000 files and for `--files`. Gallery: `--rows` random vectors of 4,096 numbers,
appended 1,000 at a time; then searches for one query and for 1,000, beside the matrix product that
they need. Index: `--indexed` vectors of people with eight images each, which differ in 64
directions, for FAISS beside exact search. The page cache holds the files.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.command_line import positive, run
from benchmarks.drawn_files import draw_files
from benchmarks.reporting import machine, peak_megabytes, write_json
from benchmarks.worker import Worker
from magnifier_jax.evaluation.embedding import l2_normalize
from magnifier_jax.retrieval.embedded import EmbeddedImages
from magnifier_jax.retrieval.embedder import Embedder
from magnifier_jax.retrieval.gallery import Gallery
from magnifier_jax.retrieval.listed_images import list_images
from magnifier_jax.tools.embed import embed_to_gallery

_APPENDED = 1000  # rows
_QUERIES = 1000
_BRANCHES = {"global": 2048, "adversarial": 1024, "fusion": 1024}
_WIDTH = sum(_BRANCHES.values())
_DIRECTIONS, _EACH = 64, 8
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

  with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
    folder = Path(name)
    for count in (1000, arguments.files):
      _measure_memory(folder / f"files{count}", count, report)
    _measure_gallery(folder / "gallery", arguments.rows, report)
    if importlib.util.find_spec("faiss"):
      _measure_index(folder / "indexed", arguments.indexed, report)
    else:
      print("FAISS is not installed: no index is measured")
  if arguments.json:
    write_json(arguments.json, {"machine": here, "measured": measured})


def _measure_memory(folder: Path, count: int, report: Callable) -> None:
  folder.mkdir()
  draw_files(folder, count)
  with Worker("embed", "benchmarks.retrieval:EmbedSide") as worker:
    seconds = worker.call("embed", folder, folder.with_name(f"people{count}"))
    report(f"embed {count:,} files, 384 × 192", count / seconds, "images/s")
    report(f"peak memory with {count:,} files", worker.call("peak"), "MB")


class EmbedSide:
  """Does what `tools.embed` does, in a process of its own."""

  def embed(self, folder: Path, output: Path) -> float:
    """Embeds a folder; returns the seconds that it took."""
    start = time.perf_counter()
    images = list_images(folder).images
    added, failed = embed_to_gallery(Embedder(_Nothing()), images, output, folder)
    assert (added, failed) == (len(images), 0)
    return time.perf_counter() - start

  def peak(self) -> float:
    """Returns the most memory so far, in MB."""
    return peak_megabytes()


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


def _measure_index(folder: Path, rows: int, report: Callable) -> None:
  gallery = Gallery.create(folder, _Nothing())
  for part in _similar_images(rows):
    gallery.add(part, camera=[i % 8 for i in range(len(part))])
  report(f"build an index of {rows:,} rows", _seconds(gallery.index), "s")
  report("open it", _seconds(gallery.index), "s")
  index = gallery.index()
  print(index.description)
  report("its recall at 10", 100 * index.recall_at_10, "%")
  queries = gallery.vectors(np.linspace(0, rows - 1, _QUERIES).astype(int))
  for name, used in (("exact", None), ("with the index", index)):
    one = [
      _seconds(lambda used=used: gallery.search(queries[:1], index=used)) for _ in range(_SEARCHES)
    ]
    report(f"1 query, {name}, median", 1000 * statistics.median(one), "ms")
    filtered = _seconds(lambda used=used: gallery.search(queries[:1], exclude_camera=2, index=used))
    report(f"1 query, {name}, with a filter", 1000 * filtered, "ms")
    report(
      f"{_QUERIES:,} queries, {name}",
      _seconds(lambda used=used: gallery.search(queries, index=used)),
      "s",
    )


def _random_images(rows: int) -> Iterator[EmbeddedImages]:
  """Yields random vectors, `_APPENDED` at a time."""
  random = np.random.default_rng(0)
  for start in range(0, rows, _APPENDED):
    count = min(_APPENDED, rows - start)
    yield _embedded(random.standard_normal((count, _WIDTH), np.float32), start, random)


def _similar_images(rows: int) -> Iterator[EmbeddedImages]:
  """Yields vectors of people, `_APPENDED` at a time; they differ in few directions."""
  random = np.random.default_rng(0)
  directions = random.standard_normal((_DIRECTIONS, _WIDTH), np.float32)
  for start in range(0, rows, _APPENDED):
    people = random.standard_normal((_APPENDED // _EACH, _DIRECTIONS), np.float32)
    images = people.repeat(_EACH, axis=0)
    images += 0.5 * random.standard_normal(images.shape, np.float32)
    yield _embedded((images @ directions)[: rows - start], start, random)


def _embedded(vectors: np.ndarray, start: int, random: np.random.Generator) -> EmbeddedImages:
  return EmbeddedImages(
    whole=l2_normalize(vectors),
    branch_widths=_BRANCHES,
    position=np.arange(len(vectors)),
    path=tuple(f"/data/people/camera1/{start + i:08}.jpg" for i in range(len(vectors))),
    sha256=tuple(random.bytes(32).hex() for _ in range(len(vectors))),
    turned=np.zeros(len(vectors), bool),
    failed=(),
    weights_sha256=_Nothing.weights_sha256,
  )


def _seconds(work: Callable[[], object]) -> float:
  start = time.perf_counter()
  work()
  return time.perf_counter() - start


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--files", type=positive, default=100_000, help="to embed; default: %(default)s")
  add("--rows", type=positive, default=100_000, help="of the gallery; default: %(default)s")
  add("--indexed", type=positive, default=100_000, help="rows with an index; default: %(default)s")
  add("--folder", type=Path, help="of the temporary files")
  add("--json", type=Path, help="also write everything here")
  return parser.parse_args()


if __name__ == "__main__":
  run(main)
