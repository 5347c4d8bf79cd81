"""Both sides of `embed_files`: a network with random weights, and image files to embed."""

import concurrent.futures
import contextlib
import io
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.reporting import num_cores
from benchmarks.side import Lap, Work, draw_batch

_BATCHES_AHEAD = 2


class JaxFiles:
  """Our side.

  Args:
    work: network, size of its images, and batch size.
    files: to embed, over and over.
  """

  def __init__(self, work: Work, files: Sequence[str]):
    import jax

    from benchmarks.cuhk03_config import NUM_PEOPLE
    from magnifier_jax.devices import mesh as mesh_lib
    from magnifier_jax.models.network import create_network
    from magnifier_jax.retrieval.embedder import Embedder
    from magnifier_jax.retrieval.workdir_network import CompiledNetwork

    mesh = mesh_lib.data_mesh()
    network, init = create_network(work.config(), NUM_PEOPLE)
    options = mesh_lib.options_to_run_once(mesh)
    draw = jax.jit(init, out_shardings=mesh_lib.replicated(mesh), compiler_options=options)
    params, batch_stats = draw(jax.random.key(0))
    self._network = CompiledNetwork(network, params, batch_stats, work.image_size_hw, "drawn")
    self._embedder = Embedder(self._network, work.batch_size)
    self._files, self._batch_size = files, work.batch_size
    self._images = draw_batch(work).image

  def warm_up(self) -> None:
    """Compiles."""
    self._network.embed_batch(self._images)

  def lap(self, batches: int) -> Lap:
    """Embeds files; returns the mean time of a batch."""

    def embed() -> None:
      images = itertools.islice(itertools.cycle(self._files), batches * self._batch_size)
      for part in self._embedder.stream(images):
        assert len(part) == self._batch_size

    return _lap(embed, batches)

  def gallery_lap(self, batches: int) -> Lap:
    """Embeds files as `tools.embed` does, into a new gallery; returns the mean time of a batch."""
    from magnifier_jax.retrieval.listed_images import ListedImage
    from magnifier_jax.tools.embed import embed_to_gallery

    paths = itertools.islice(itertools.cycle(self._files), batches * self._batch_size)
    images = [ListedImage(path) for path in paths]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
      place = Path(folder)
      return _lap(lambda: embed_to_gallery(self._embedder, images, place, place), batches)

  def bare_lap(self, batches: int) -> Lap:
    """Runs the network alone; returns the mean time of a batch."""

    def embed() -> None:
      for _ in range(batches):
        self._network.embed_batch(self._images)

    return _lap(embed, batches)


class PytorchFiles:
  """The twin, which loads images in threads or in a DataLoader.

  Args:
    work: network, size of its images, and batch size.
    files: to embed, over and over.
    variant: of the twin; see `comparison.ALL_VARIANTS`.
  """

  def __init__(self, work: Work, files: Sequence[str], variant: str):
    from benchmarks.pytorch_side import PytorchSide

    self._twin = PytorchSide(work, variant).twin
    self._work, self._files = work, files
    self._device = "cuda" if work.device == "gpu" else "cpu"
    self._loader = None
    self._sampler = _Batches(len(files), work.batch_size)

  def warm_up(self) -> None:
    """Compiles."""
    import torch

    self._twin.embed(torch.from_numpy(draw_batch(self._work).image).to(self._device))

  def load_by(self, way: str) -> None:
    """Chooses how images are loaded: 'threads', or the number of a DataLoader's processes."""
    from torch.utils.data import DataLoader

    self._loader = None
    if way != "threads":
      self._loader = DataLoader(
        _Files(self._files, self._work.image_size_hw),
        batch_sampler=self._sampler,
        num_workers=int(way),
        persistent_workers=True,
        pin_memory=self._device == "cuda",
        collate_fn=_collate,
      )

  def lap(self, batches: int) -> Lap:
    """Embeds files; returns the mean time of a batch."""
    self._sampler.batches = batches

    def embed() -> None:
      loaded = self._threads(batches) if self._loader is None else self._loader
      for images in loaded:
        vectors = self._twin.embed(images.to(self._device, non_blocking=True)).cpu().numpy()
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    return _lap(embed, batches)

  def _threads(self, batches: int) -> Iterator:
    """Yields batches that threads have loaded, one a core."""
    files = _Files(self._files, self._work.image_size_hw)
    ahead = _BATCHES_AHEAD * self._work.batch_size
    wanted = itertools.chain.from_iterable(self._sampler)
    with concurrent.futures.ThreadPoolExecutor(num_cores()) as pool:
      queue = [pool.submit(files.__getitem__, i) for i in itertools.islice(wanted, ahead)]
      for _ in range(batches):
        rows = [future.result() for future in queue[: self._work.batch_size]]
        del queue[: self._work.batch_size]
        more = itertools.islice(wanted, self._work.batch_size)
        queue += [pool.submit(files.__getitem__, i) for i in more]
        yield _collate(rows)


class _Batches:
  """The sampler of a DataLoader: `batches` batches of file numbers."""

  def __init__(self, files: int, batch_size: int):
    self._files, self._batch_size = files, batch_size
    self.batches = 1

  def __len__(self) -> int:
    return self.batches

  def __iter__(self) -> Iterator[list[int]]:
    for start in range(0, self.batches * self._batch_size, self._batch_size):
      yield [(start + i) % self._files for i in range(self._batch_size)]


class _Files:
  """A data set of files: Pillow decodes and resizes, and images stay uint8."""

  def __init__(self, files: Sequence[str], size_hw: tuple[int, int]):
    self._files, self._size_wh = files, size_hw[::-1]

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, index: int) -> np.ndarray:
    with Image.open(self._files[index]) as file:
      image = file.convert("RGB").resize(self._size_wh, Image.Resampling.BILINEAR)
    return np.asarray(image)


def _collate(rows: list[np.ndarray]):
  import torch

  return torch.from_numpy(np.stack(rows))


def _lap(work, batches: int) -> Lap:
  start, cpu_start = time.perf_counter(), time.process_time()
  work()
  seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
  return Lap(seconds / batches, cpu_seconds / batches)
