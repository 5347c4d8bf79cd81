"""A gallery in LanceDB, on a local folder: it holds and finds what a local one does."""

from pathlib import Path

import numpy as np
import pytest

from magnifier_jax.retrieval.embedder import Embedder
from magnifier_jax.retrieval.gallery import Gallery
from magnifier_jax.retrieval.gallery_files import GalleryError
from magnifier_jax.retrieval.gallery_place import gallery_place, open_gallery, open_or_create
from magnifier_jax.retrieval.lance_gallery import LanceGallery
from tests.retrieval.fake_network import FakeNetwork, pictures

lancedb = pytest.importorskip("lancedb", reason="LanceDB is not installed: pip install .[lance]")

EMBEDDER = Embedder(FakeNetwork())
KNOWN = {"person": ["ann", None, "bob's", "ann", None, "cy"], "camera": [1, 1, 2, 2, None, 3]}
TIMES = [1.0, 2.0, 3.0, None, 5.0, 6.0]


@pytest.fixture
def address(tmp_path: Path) -> str:
  return f"lance://{tmp_path}/people"


@pytest.fixture
def lance(address: str) -> LanceGallery:
  """Six rows."""
  gallery = LanceGallery.create(address, EMBEDDER, "/network")
  gallery.add(EMBEDDER.embed(pictures(6)), time=TIMES, track=9, **KNOWN)
  return gallery


def test_it_finds_what_a_local_gallery_finds(lance: LanceGallery, address: str, tmp_path: Path):
  local = Gallery.create(tmp_path / "local", EMBEDDER)
  for _ in range(2):  # an append is seen by who appended and by who opens anew
    local.add(EMBEDDER.embed(pictures(6)), time=TIMES, track=9, **KNOWN)
  lance.add(EMBEDDER.embed(pictures(6)), time=TIMES, track=9, **KNOWN)
  queries = EMBEDDER.embed(pictures(3, seed=5))
  for gallery in (lance, LanceGallery.open(address)):
    assert len(gallery) == 12
    for filters in (
      {},
      {"exclude_camera": 1},
      {"exclude_camera": ["2", 3], "time": (1.5, 5)},
      {"exclude_camera": "it's"},
    ):
      theirs = gallery.search(queries, k=4, **filters)
      ours = local.search(queries, k=4, **filters)
      for found, expected in zip(theirs, ours):
        # Copies are equally near, so that which comes first is nobody's concern.
        assert [m.distance for m in found] == pytest.approx(
          [m.distance for m in expected], abs=1e-5
        )
        assert sorted(_known(m) for m in found) == sorted(_known(m) for m in expected)
        for one, other in zip(found, expected):
          assert one.branch_distances == pytest.approx(other.branch_distances, abs=1e-5)
  assert lance.column("camera").tolist() == local.column("camera").tolist()
  np.testing.assert_array_equal(lance.column("time"), local.column("time"))


def _known(match) -> tuple:
  return match.person, match.camera, match.track, str(match.time), match.sha256


def test_it_says_whose_vectors_it_holds(lance: LanceGallery, address: str):
  again = open_gallery(gallery_place(address))
  assert (again.network, again.network_source) == ("a fake", "/network")
  assert again.branches == {"global": 24, "fusion": 3}
  assert again.thresholds.at(1e-3).distance_threshold == 0.05
  assert again.name == address
  assert len(open_or_create(address, EMBEDDER, "")) == 6


def test_vectors_of_another_network_are_refused(lance: LanceGallery):
  other = Embedder(FakeNetwork(weights="a" * 64))
  with pytest.raises(GalleryError, match=r"of another network .* than the images to add"):
    lance.add(other.embed(pictures(2)))
  with pytest.raises(GalleryError, match=r"of another network .* than the query"):
    lance.search(other.embed(pictures(1)))
  with pytest.raises(GalleryError, match=r"row 0 has norm 2"):
    lance.search(2 * EMBEDDER.embed(pictures(1)).whole)
  assert len(lance) == 6


def test_rows_are_deleted_by_what_is_known(lance: LanceGallery):
  assert lance.delete(person="ann", camera=2) == 1
  assert lance.delete(person=["bob's", "nobody"]) == 1
  assert lance.column("person").tolist() == ["ann", "", "", "cy"]
  assert lance.delete(track=9) == 4
  with pytest.raises(GalleryError, match="say which rows, by path, sha256, person, camera, track"):
    lance.delete()
  with pytest.raises(GalleryError, match="say which rows"):
    lance.delete(time=3)


def test_what_cannot_be_is_one_line(lance: LanceGallery, address: str, tmp_path: Path):
  query = EMBEDDER.embed(pictures(1))
  with pytest.raises(GalleryError, match="nothing to search, the filters leave none of its 6"):
    lance.search(query, time=(100, 200))
  with pytest.raises(GalleryError, match="k: must be at least 1"):
    lance.search(query, k=0)
  with pytest.raises(GalleryError, match="a gallery is there already"):
    LanceGallery.create(address, EMBEDDER)
  nowhere = f"lance://{tmp_path}/nowhere"
  with pytest.raises(GalleryError, match=r"no gallery there; tools\.embed makes one"):
    LanceGallery.open(nowhere)
  assert not (tmp_path / "nowhere").exists()
  empty = LanceGallery.create(nowhere, EMBEDDER)
  with pytest.raises(GalleryError, match="nothing to search, it is empty"):
    empty.search(query)
  foreign = lancedb.connect(tmp_path / "foreign")
  foreign.create_table("magnifier_jax_gallery", [{"path": "a"}])
  with pytest.raises(GalleryError, match="its table is not a gallery of this program"):
    LanceGallery.open(f"lance://{tmp_path}/foreign")
