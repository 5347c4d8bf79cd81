"""A process that is killed while it embeds: what it had committed is there, and nothing else."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from magnifier_jax.retrieval.gallery import Gallery
from tests.retrieval.fake_network import pictures

IMAGES = 4000
# Writes all the time, in shards of few rows, and prints what has been committed.
_EMBED = """
import sys
from pathlib import Path
import numpy as np
from magnifier_jax.retrieval import gallery_files
from magnifier_jax.retrieval.embedder import Embedder
from magnifier_jax.tools import embed
from magnifier_jax.retrieval.listed_images import ListedImage
from magnifier_jax.retrieval.gallery import Gallery
from tests.retrieval.fake_network import FakeNetwork
import magnifier_jax.retrieval.embedder as embedder_lib
from magnifier_jax.retrieval.images import LoadedImage
from tests.retrieval.test_killed import IMAGES
from tests.retrieval.fake_network import pictures

def drawn(images, size_hw, ahead):
  every = pictures(IMAGES)
  for i, path in enumerate(images):
    yield LoadedImage(i, every[int(Path(path).stem)], path, path)

embedder_lib.load_ahead = drawn
gallery_files._SHARD_BYTES = 37 * 27 * 4
embed._COMMIT_ROWS = 16
add = Gallery.add
def add_and_tell(self, *args, **kwargs):
  add(self, *args, **kwargs)
  print(len(self), flush=True)
Gallery.add = add_and_tell
images = [ListedImage(f"/{i}") for i in range(IMAGES)]
embed.embed_to_gallery(Embedder(FakeNetwork(), 8), images, Path(sys.argv[1]), Path("/network"))
"""


def embed_until_killed(folder: Path, repository: Path, seconds: float) -> int:
  """Starts to embed, kills the process some time after its first commit; returns the last one."""
  command = [sys.executable, "-c", _EMBED, str(folder)]
  with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as process:
    committed = 0
    for line in process.stdout:
      if line.strip().isdigit():
        committed = int(line)
        break
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    counts = [int(line) for line in process.stdout if line.strip().isdigit()]
    assert process.wait() in (-signal.SIGKILL, 0)
  return max([committed, *counts])


@pytest.mark.slow
def test_a_gallery_survives_kills(repository: Path, tmp_path: Path):
  folder = tmp_path / "people"
  everything = pictures(IMAGES).astype(np.float32) - 128
  for _ in range(3):
    committed = embed_until_killed(folder, repository, random.uniform(0, 1))
    gallery = Gallery.open(folder)
    assert committed <= len(gallery) < IMAGES
    assert gallery.column("path").tolist() == [f"/{i}" for i in range(len(gallery))]
    vectors = np.concatenate(gallery.shards)
    cells = everything[: len(gallery)].reshape(-1, 4, 4, 2, 4, 3).mean(axis=(2, 4))
    whole = np.concatenate([cells.reshape(len(cells), -1), cells.mean(axis=(1, 2))], axis=1)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, whole, atol=1e-6)
  assert len(gallery) > 100
