"""A gallery on disk: what was added is there, whole, and found; nothing else is."""

import concurrent.futures
import dataclasses
import datetime
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from magnifier_jax import Gallery
from magnifier_jax.files.whole_file import WriteError
from magnifier_jax.retrieval import gallery_files
from magnifier_jax.retrieval.embedded import EmbeddedImages
from magnifier_jax.retrieval.embedder import Embedder
from magnifier_jax.retrieval.gallery import GalleryError
from tests.full_disk import full_disk
from tests.retrieval.fake_network import FakeNetwork, pictures
from tests.retrieval.test_embedder import write_pictures

EMBEDDER = Embedder(FakeNetwork())


def embedded(count: int, seed: int = 0) -> EmbeddedImages:
  return EMBEDDER.embed(pictures(count, seed))


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
  """An empty one."""
  return Gallery.create(tmp_path / "people", EMBEDDER)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
  """Shards of 7 rows."""
  monkeypatch.setattr(gallery_files, "_SHARD_BYTES", 7 * 27 * 4)


@pytest.mark.usefixtures("small_shards")
def test_what_was_added_is_there_and_found(gallery: Gallery, tmp_path: Path):
  parts = [embedded(count, seed) for seed, count in enumerate((5, 1, 20, 2))]
  for seed, part in enumerate(parts):
    gallery.add(part, camera=seed, person=range(len(part)))
  again = Gallery.open(tmp_path / "people")
  assert len(again) == len(gallery) == 28
  assert [len(shard) for shard in again.shards] == [7, 7, 7, 7]
  whole = np.concatenate([part.whole for part in parts])
  np.testing.assert_array_equal(np.concatenate(again.shards), whole)
  assert again.column("camera").tolist() == [*"00000", "1", *"2" * 20, *"33"]
  for found in (gallery, again):
    matches = found.search(whole, k=3)
    assert [of_query[0].row for of_query in matches] == list(range(28))
    assert matches[6][0].distance == pytest.approx(0, abs=1e-6)
  distances = np.square(whole - whole[6]).sum(axis=1)
  assert [match.row for match in matches[6]] == np.argsort(distances)[:3].tolist()
  second = matches[6][1]
  assert second.distance == pytest.approx(distances[second.row], abs=1e-5)
  assert second.camera == again.column("camera")[second.row]


def test_files_are_what_other_programs_read(gallery: Gallery):
  part = embedded(6)
  gallery.add(part, camera="door", time=[1, 2, 3, 4, None, 6])
  [vectors] = (gallery.folder / "vectors").iterdir()
  np.testing.assert_array_equal(np.load(vectors), part.whole)
  table = pq.read_table(gallery.folder / "rows")
  assert table.column_names == ["path", "sha256", "person", "camera", "time", "track"]
  assert table["camera"].to_pylist() == ["door"] * 6
  assert table["time"].null_count == 1
  model = json.loads((gallery.folder / "model.json").read_text())
  assert model["weights_sha256"] == "f" * 64
  assert model["branches"] == {"global": 24, "fusion": 3}


def test_rows_know_their_files(gallery: Gallery, tmp_path: Path):
  files = write_pictures(tmp_path, 3)
  files[0].write_bytes(b"damaged")
  gallery.add(EMBEDDER.embed(files), person=["a", "b", "c"], camera=[1, 2, 3], track=9)
  [match] = gallery.search(embedded(3).whole[2:], k=1)[0]
  assert (match.path, match.person, match.camera, match.track) == (str(files[2]), "c", "3", "9")
  assert len(match.sha256) == 64
  assert math.isnan(match.time)
  assert list(match.branch_distances) == ["global", "fusion"]
  assert match.images == 1


def test_filters_leave_rows_out(gallery: Gallery):
  part = embedded(6)
  noon = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
  times = [noon + datetime.timedelta(hours=hours) for hours in range(6)]
  gallery.add(part, camera=[1, 1, 2, 2, None, 3], time=times)

  def rows(**filters) -> list[int]:
    return sorted(match.row for match in gallery.search(part.whole[:1], k=10, **filters)[0])

  assert rows() == [0, 1, 2, 3, 4, 5]
  assert rows(exclude_camera=1) == [2, 3, 4, 5]
  assert rows(exclude_camera="2") == [0, 1, 4, 5]
  assert rows(exclude_camera=[1, 3]) == [2, 3, 4]
  assert rows(time=(times[1], times[3])) == [1, 2, 3]
  assert rows(exclude_camera=1, time=(times[1].timestamp(), times[3].timestamp())) == [2, 3]
  with pytest.raises(GalleryError, match="nothing to search, the filters leave none of its 6"):
    rows(time=(0, 1))
  with pytest.raises(GalleryError, match="k: must be at least 1"):
    gallery.search(part, k=0)


def test_tracks_are_searched_as_one(gallery: Gallery):
  part = embedded(6)
  gallery.add(part, camera=[1, 1, 1, 2, 2, 2], track=[5, 5, 5, 5, None, 7])
  found = gallery.search(part.whole[4:5], k=10, pool_tracks=True)[0]
  assert sorted(match.images for match in found) == [1, 1, 1, 3]
  assert found[0].row == 4
  [pooled] = [match for match in found if match.images == 3]
  mean = part.whole[:3].sum(axis=0)
  mean /= np.linalg.norm(mean)
  assert pooled.distance == pytest.approx(np.square(mean - part.whole[4]).sum(), abs=1e-5)
  assert pooled.row == np.argmax(part.whole[:3] @ mean)


def test_nothing_is_lost_when_several_add(gallery: Gallery):
  def add_ten(seed: int) -> None:
    own, part = Gallery.open(gallery.folder), embedded(2, seed)
    for _ in range(10):
      own.add(part, camera=seed)

  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    list(pool.map(add_ten, range(3)))
  everything = Gallery.open(gallery.folder)
  cameras = everything.column("camera")
  assert sorted(cameras.tolist()) == sorted("012" * 20)
  for camera in "012":
    rows = np.flatnonzero(cameras == camera)
    expected = np.tile(embedded(2, seed=int(camera)).whole, (10, 1))
    np.testing.assert_array_equal(everything.vectors(rows), expected)


def test_what_another_one_adds_is_seen_on_opening_again(gallery: Gallery):
  other = Gallery.open(gallery.folder)
  other.add(embedded(4))
  assert (len(gallery), len(Gallery.open(gallery.folder))) == (0, 4)
  gallery.add(embedded(2, seed=1))
  assert len(gallery) == 6


def test_an_append_that_fails_changes_nothing(gallery: Gallery):
  gallery.add(embedded(3))
  with full_disk(), pytest.raises(WriteError, match="free some space there"):
    gallery.add(embedded(5, seed=1))
  assert len(Gallery.open(gallery.folder)) == 3
  gallery.add(embedded(2, seed=2))
  again = Gallery.open(gallery.folder)
  np.testing.assert_array_equal(again.shards[0][3:], embedded(2, seed=2).whole)
  assert len(list((gallery.folder / "rows").iterdir())) == 1


def test_vectors_of_another_network_are_refused(gallery: Gallery):
  other = Embedder(FakeNetwork(weights="a" * 64))
  with pytest.raises(GalleryError, match=r"of another network .* weights ffffffffffff…\) than"):
    gallery.add(other.embed(pictures(2)))
  gallery.add(embedded(2))
  with pytest.raises(GalleryError, match="than the query"):
    gallery.search(other.embed(pictures(1)))
  branch = dataclasses.replace(embedded(1), branch_widths={"fusion": 3, "global": 24})
  with pytest.raises(GalleryError, match="of the branches global, fusion, the query of fusion, gl"):
    gallery.search(branch)


def test_damaged_vectors_and_values_that_do_not_fit_are_refused(gallery: Gallery):
  part = embedded(3)
  broken = part.whole.copy()
  broken[1, 5] = np.nan
  with pytest.raises(GalleryError, match=r"row 1 has norm nan"):
    gallery.add(dataclasses.replace(part, whole=broken))
  with pytest.raises(GalleryError, match=r"row 0 has norm 2"):
    gallery.add(dataclasses.replace(part, whole=2 * part.whole))
  with pytest.raises(GalleryError, match=r"camera: .* each of the 3 images .* got 2"):
    gallery.add(part, camera=[1, 2])
  with pytest.raises(GalleryError, match=r"\[N, 27\] is wanted, got shape \(3, 4\)"):
    gallery.search(part.whole[:, :4])
  with pytest.raises(GalleryError, match="nothing to search, it is empty"):
    gallery.search(part)


@pytest.mark.parametrize("theirs", ["model.json", "rows/notes.txt", "vectors/000000.npy"])
def test_files_of_the_users_with_a_gallerys_names_stay(tmp_path: Path, theirs: str):
  file = tmp_path / theirs
  file.parent.mkdir(exist_ok=True)
  file.write_text("mine")
  with pytest.raises(GalleryError, match="not empty"):
    Gallery.create(tmp_path, EMBEDDER)
  assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
  assert file.read_text() == "mine"


def test_what_a_killed_creation_left_becomes_a_gallery(gallery: Gallery):
  (gallery.folder / gallery_files.MANIFEST).unlink()
  made = Gallery.create(gallery.folder, EMBEDDER)
  made.add(embedded(3))
  assert len(Gallery.open(gallery.folder)) == 3


def test_nothing_of_the_users_becomes_a_gallery(gallery: Gallery, tmp_path: Path):
  with pytest.raises(GalleryError, match="a gallery is there already"):
    Gallery.create(gallery.folder, EMBEDDER)
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "photo.jpg").touch()
  with pytest.raises(GalleryError, match=r"not empty, it has photo\.jpg"):
    Gallery.create(tmp_path / "mine", EMBEDDER)
  with pytest.raises(GalleryError, match="no gallery there"):
    Gallery.open(tmp_path / "none")


def _cut(file: Path) -> None:
  file.write_bytes(file.read_bytes()[:-8])


@pytest.mark.parametrize(
  ("file", "damage", "message"),
  [
    ("vectors/000000.npy", _cut, r"000000\.npy: damaged, it has 444 of 452 bytes"),
    ("vectors/000000.npy", Path.unlink, "damaged, it has 0 of"),
    ("rows/000000-0000003.parquet", _cut, r"parquet: damaged"),
    ("rows/000000-0000003.parquet", Path.unlink, "a table of rows is missing"),
    ("manifest.json", _cut, r"manifest\.json: cannot be read"),
    ("manifest.json", lambda f: f.write_text("[]"), r"manifest\.json: damaged"),
    ("manifest.json", lambda f: f.write_text('{"format": 9}'), "of format 9, this program knows 1"),
    ("manifest.json", lambda f: f.write_text('{"format": 1}'), r"manifest\.json: damaged"),
    ("model.json", lambda f: f.write_text("{}"), r"model\.json: damaged"),
    ("model.json", Path.unlink, r"model\.json: cannot be read"),
  ],
)
def test_damage_is_named(gallery: Gallery, file: str, damage, message: str):
  gallery.add(embedded(3))
  damage(gallery.folder / file)
  with pytest.raises(GalleryError, match=message):
    Gallery.open(gallery.folder)
