"""Approximate search: near enough to the exact one, and never of another gallery's rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from magnifier_jax import Gallery
from magnifier_jax.retrieval import approximate, gallery_files
from magnifier_jax.retrieval.approximate import IndexingError
from magnifier_jax.retrieval.embedded import EmbeddedImages
from magnifier_jax.retrieval.gallery import GalleryError
from magnifier_jax.retrieval.nearest import nearest_rows
from tests.retrieval.fake_network import FakeNetwork

NETWORK = FakeNetwork()
WIDTH = 27

faiss = pytest.importorskip("faiss", reason="FAISS is not installed: pip install .[search]")
faiss.omp_set_num_threads(1)  # several would wait for one another longer than they compute


def people(count: int, seed: int = 0) -> EmbeddedImages:
  """Vectors of people with eight images each."""
  random = np.random.default_rng(seed)
  centres = random.standard_normal((count // 8 + 1, WIDTH), np.float32)
  whole = centres.repeat(8, axis=0)[:count]
  whole += 0.3 * random.standard_normal((count, WIDTH), np.float32)
  return EmbeddedImages(
    whole=whole / np.linalg.norm(whole, axis=1, keepdims=True),
    branch_widths=NETWORK.branches,
    position=np.arange(count),
    path=("",) * count,
    sha256=("",) * count,
    turned=np.zeros(count, bool),
    failed=(),
    weights_sha256=NETWORK.weights_sha256,
  )


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
  """2,400 rows in several shards, of cameras 0 to 3, at times 0 to 2,399."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(gallery_files, "_SHARD_BYTES", 700 * WIDTH * 4)
    gallery = Gallery.create(tmp_path_factory.mktemp("people"), NETWORK)
    gallery.add(people(2400), camera=[i % 4 for i in range(2400)], time=list(range(2400)))
  gallery.index()
  return gallery


def recall(gallery: Gallery, queries: np.ndarray, index: approximate.ApproximateIndex) -> float:
  """The share of the ten nearest rows that are found."""
  exact = nearest_rows(gallery.shards, queries, 10).row
  found = index.search(gallery.shards, queries, 10).row
  return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist())])


def test_it_finds_what_it_says_that_it_finds(gallery: Gallery):
  index = gallery.index()
  assert index.rows == 2400
  assert 0.9 < index.recall_at_10 <= 1
  queries = gallery.vectors(np.arange(0, 2400, 3))
  assert recall(gallery, queries, index) == pytest.approx(index.recall_at_10, abs=0.05)
  record = json.loads((gallery.folder / "index" / "ivf.json").read_text())
  assert 1 <= record["probed"] < record["lists"]  # it does look at a part only
  assert f"{100 * index.recall_at_10:.1f} %" in index.description


def test_distances_are_exact_and_matches_know_their_rows(gallery: Gallery):
  queries = gallery.vectors(np.array([5, 900, 2399]))
  for query, matches in zip(queries, gallery.search(queries, k=5, index=gallery.index())):
    assert matches[0].distance == pytest.approx(0, abs=1e-6)
    for match in matches:
      [vector] = gallery.vectors(np.array([match.row]))
      assert match.distance == pytest.approx(np.square(vector - query).sum(), abs=1e-5)
      assert (match.camera, match.time) == (str(match.row % 4), match.row)


def test_few_lists_find_less(gallery: Gallery):
  index = gallery.index()
  worse = approximate.ApproximateIndex(index._index, index._record._replace(probed=1))
  queries = gallery.vectors(np.arange(0, 2400, 3))
  assert recall(gallery, queries, worse) < index.recall_at_10 - 0.05


@pytest.mark.parametrize(
  ("filters", "kept"),
  [
    ({"exclude_camera": [0, 1, 2]}, lambda row: row % 4 == 3),
    ({"time": (0, 1199)}, lambda row: row < 1200),
    ({"time": (2380, 2399)}, lambda row: row >= 2380),  # few: searched exactly
    ({"exclude_camera": 1, "time": (100, 900)}, lambda row: row % 4 != 1 and 100 <= row <= 900),
  ],
)
def test_filters_hold_and_nothing_falls_short(gallery: Gallery, filters, kept):
  queries = gallery.vectors(np.arange(0, 2400, 37))
  found = gallery.search(queries, k=15, index=gallery.index(), **filters)
  exact = gallery.search(queries, k=15, **filters)
  assert {len(matches) for matches in found} == {15}
  assert all(kept(match.row) for matches in found for match in matches)
  same = [
    len({match.row for match in ours} & {match.row for match in theirs}) / 15
    for ours, theirs in zip(found, exact)
  ]
  assert np.mean(same) > 0.8


def test_queries_whose_lists_have_too_few_rows_are_searched_exactly(gallery: Gallery):
  index = gallery.index()
  index = approximate.ApproximateIndex(index._index, index._record._replace(probed=1))
  keep = np.arange(2400) < 200  # more than a twentieth
  queries = gallery.vectors(np.arange(1000, 1020))
  found = index.search(gallery.shards, queries, 150, keep)
  np.testing.assert_array_equal(found.row, nearest_rows(gallery.shards, queries, 150, keep).row)


@pytest.fixture
def growing(tmp_path: Path) -> Gallery:
  """1,200 rows with an index."""
  gallery = Gallery.create(tmp_path / "people", NETWORK)
  gallery.add(people(1200))
  gallery.index()
  return gallery


def test_rows_that_were_added_are_found(growing: Gallery):
  said = []
  later = people(100, seed=7)
  growing.add(later)
  index = growing.index(said.append)
  assert (index.rows, said) == (1200, [])
  found = growing.search(later.whole, k=3, index=index)
  exact = growing.search(later.whole, k=3)
  assert [matches[0].row for matches in found] == list(range(1200, 1300))
  assert [[m.row for m in matches] for matches in found] == [
    [m.row for m in matches] for matches in exact
  ]
  growing.add(people(100, seed=8))
  index = growing.index(said.append)
  assert index.rows == 1400
  assert said[0] == "the index is of 1,200 images; building one of 1,400 images"
  assert [file.name for file in (growing.folder / "index").glob("*.faiss")] == ["ivf-0001400.faiss"]


def test_an_index_of_other_vectors_is_built_anew(growing: Gallery, tmp_path: Path):
  said = []
  other = Gallery.create(tmp_path / "others", NETWORK)
  other.add(people(1200, seed=3))
  (growing.folder / "index").rename(other.folder / "index")
  query = people(1200, seed=3).whole[7:8]
  assert other.search(query, k=1, index=other.index(said.append))[0][0].row == 7
  assert said[0] == "the index is of other images; building one of 1,200 images"
  said.clear()
  other.index(said.append)
  assert said == []


@pytest.mark.parametrize("file", ["ivf.json", "ivf-0001200.faiss"])
@pytest.mark.parametrize("damage", [b"{}", b"", None])
def test_a_damaged_index_is_built_anew(growing: Gallery, file: str, damage: bytes | None):
  path = growing.folder / "index" / file
  if damage is None:
    path.unlink()
  else:
    path.write_bytes(damage)
  said = []
  index = growing.index(said.append)
  assert "building one of 1,200 images" in said[0]
  assert growing.search(growing.vectors(np.array([3])), k=1, index=index)[0][0].row == 3


def test_memory_decides_the_compression(growing: Gallery, monkeypatch: pytest.MonkeyPatch):
  assert json.loads((growing.folder / "index" / "ivf.json").read_text())["code"] == "SQ8"
  monkeypatch.setattr(approximate, "_MEMORY_SHARE", 0)
  (growing.folder / "index" / "ivf.json").unlink()
  index = growing.index()
  assert "(PQ6)" in index.description
  # Coarse codes find candidates; their exact distances rank them.
  assert index.recall_at_10 > 0.9


def test_too_few_rows_and_pooled_tracks_are_refused(growing: Gallery, tmp_path: Path):
  small = Gallery.create(tmp_path / "few", NETWORK)
  small.add(people(999))
  with pytest.raises(IndexingError, match="an index wants 1,000 images, and there are 999; exact"):
    small.index()
  with pytest.raises(GalleryError, match="index: tracks that are pooled are searched exactly"):
    growing.search(people(1).whole, pool_tracks=True, index=growing.index())
