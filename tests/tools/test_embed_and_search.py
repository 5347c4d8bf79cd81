"""`tools.embed` and `tools.search`, with a network of a few numbers: galleries, results, pages."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magnifier_jax.errors import UserError
from magnifier_jax.evaluation.reranking import reranked_distances
from magnifier_jax.evaluation.thresholds import of_several
from magnifier_jax.retrieval import approximate
from magnifier_jax.retrieval import embedder as embedder_lib
from magnifier_jax.retrieval.gallery import Gallery, GalleryError
from magnifier_jax.retrieval.search_results import SearchError
from magnifier_jax.tools import embed, search
from magnifier_jax.tools.program import OverwriteError
from tests.report import browser
from tests.retrieval.fake_network import THRESHOLDS, FakeNetwork, pictures


class Network:
  """What `load` opens, whatever it is asked for.

  Attributes:
    weights: SHA-256 of its weights.
    thresholds: as in `metrics.json`.
    opened: networks, in order.
  """

  def __init__(self):
    self.weights = "f" * 64
    self.thresholds = THRESHOLDS
    self.opened: list[FakeNetwork] = []

  def open(self, source: Path, checkpoint: str) -> FakeNetwork:
    """Stands in for `open_network`."""
    self.opened.append(FakeNetwork(self.thresholds, self.weights))
    return self.opened[-1]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Network:
  """Takes the place of trained networks."""
  (tmp_path / "run").mkdir()
  network = Network()
  monkeypatch.setattr(embedder_lib, "open_network", network.open)
  monkeypatch.chdir(tmp_path)
  return network


@pytest.fixture
def photos(tmp_path: Path) -> Path:
  """Twelve images: four people, before cameras 1 to 3, who look a little like themselves."""
  folder = tmp_path / "photos" / "inner"
  folder.mkdir(parents=True)
  noise = np.random.default_rng(1)
  for person, pixels in enumerate(pictures(4)):
    for camera in (1, 2, 3):
      seen = np.clip(pixels + noise.integers(-12, 13, pixels.shape), 0, 255)
      Image.fromarray(seen.astype(np.uint8)).save(folder / f"000{person}_c{camera}_1.png")
  return folder.parent


def run_embed(images: Path | str, output: str = "people", *options: str) -> int:
  return embed.main(["--network=run", f"--images={images}", f"--output={output}", *options])


def run_search(query: Path | str, output: str, *options: str) -> str:
  return search.main(["--gallery=people", f"--query={query}", f"--output={output}", *options])


def found(query: Path | str, *options: str) -> dict:
  """The JSON of a search."""
  Path("found.json").unlink(missing_ok=True)
  run_search(query, "found.json", *options)
  return json.loads(Path("found.json").read_text())


@pytest.mark.usefixtures("network")
def test_a_folder_becomes_a_gallery(photos: Path, capsys):
  (photos / "notes.txt").touch()
  assert run_embed(photos) == 0
  gallery = Gallery.open("people")
  assert len(gallery) == 12
  assert gallery.column("person").tolist() == [str(p) for p in range(4) for _ in range(3)]
  assert gallery.column("camera").tolist() == ["1", "2", "3"] * 4
  assert gallery.column("path")[0] == str(photos / "inner" / "0000_c1_1.png")
  printed = capsys.readouterr().out
  assert "note:" in printed
  assert "notes.txt: a .txt file, not used" in printed
  assert "people: 12 images added, 12 in all" in printed


def test_it_goes_on_and_takes_more(photos: Path, network: Network, capsys):
  some = photos / "some"
  some.mkdir()
  for file in sorted((photos / "inner").iterdir())[:5]:
    (some / file.name).write_bytes(file.read_bytes())
  run_embed(some)
  assert run_embed(photos) == 0
  assert "people has 5 of the images already" in capsys.readouterr().out
  assert sum(network.opened[1].batch_sizes) == 8 + 8
  assert len(Gallery.open("people")) == 5 + 12
  run_embed(photos)
  assert network.opened[2].batch_sizes == []
  network.weights = "a" * 64
  with pytest.raises(GalleryError, match="of another network"):
    run_embed(photos)


@pytest.mark.usefixtures("network")
def test_what_fails_is_listed(photos: Path, capsys):
  (photos / "inner" / "0000_c1_1.png").write_bytes(b"")
  (photos / "inner" / "0001_c1_1.png").write_bytes(b"no image")
  assert run_embed(photos) == 0
  assert run_embed(photos, "people", "--strict") == 1  # they are tried again
  printed = capsys.readouterr().out
  assert printed.count("0000_c1_1.png: the file is empty") == 2
  assert "✗ " in printed
  assert "2 images could not be embedded" in printed
  gallery = Gallery.open("people")
  assert len(gallery) == 10
  assert gallery.column("person").tolist() == [*"00", *"11", *"222", *"333"]


@pytest.mark.usefixtures("network")
def test_a_table_says_what_is_known(photos: Path):
  table = photos / "table.csv"
  rows = [
    "track;image;camera;time",
    "7;inner/0001_c1_1.png;door;2026-11-28T12:00:00+00:00",
    f";{photos / 'inner' / '0002_c1_1.png'};;12.5",
    "9;inner/0001_c1_1.png;again;",
  ]
  table.write_text("\n".join(rows))
  run_embed(table)
  gallery = Gallery.open("people")
  assert [Path(path).name[:4] for path in gallery.column("path")] == ["0001", "0002"]
  assert gallery.column("camera").tolist() == ["door", ""]
  assert gallery.column("track").tolist() == ["7", ""]
  assert gallery.column("person").tolist() == ["", ""]
  assert gallery.column("time").tolist() == [1795867200.0, 12.5]


@pytest.mark.usefixtures("network")
def test_one_file_in_place_of_a_gallery(photos: Path):
  assert run_embed(photos, "people.npz", "--format=npz") == 0
  run_embed(photos)
  gallery = Gallery.open("people")
  with np.load("people.npz") as arrays:
    np.testing.assert_array_equal(arrays["whole"], np.concatenate(gallery.shards))
    assert arrays["path"].tolist() == gallery.column("path").tolist()
    assert arrays["camera"].tolist() == gallery.column("camera").tolist()
    assert dict(zip(arrays["branches"].tolist(), arrays["branch_widths"].tolist())) == (
      gallery.branches
    )
  with pytest.raises(OverwriteError):
    run_embed(photos, "people.npz", "--format=npz")


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
  ("images", "output", "options", "message"),
  [
    ("nowhere", "people", (), "nowhere: no such folder, CSV file or image"),
    ("empty", "people", (), "empty: no images there$"),
    ("texts", "people", (), r"texts: no images there \(but .*a\.txt: a \.txt file, not used"),
    ("broken", "people", (), "none of the 1 images could be embedded"),
    ("no_image.csv", "people", (), "column 'image' missing; the columns are image"),
    ("no_rows.csv", "people", (), "no row names an image"),
    ("bad_time.csv", "people", (), r"bad_time\.csv: line 2: time 'noon' must be a number"),
    ("photos", "people.npz", (), "must be a folder; --format=npz writes a file"),
    ("photos", "people", ("--format=npz",), r"must end in \.npz"),
    ("photos", "people", ("--batch_size=0",), "batch_size: must be at least 1"),
    ("photos", "texts", (), r"texts: not empty, it has a\.txt; name a new folder"),
  ],
)
def test_bad_input_is_one_line(photos: Path, tmp_path: Path, images, output, options, message):
  for name, content in {
    "texts/a.txt": "",
    "broken/a.png": "",
    "no_image.csv": "picture\na.png\n",
    "no_rows.csv": "image\n",
    "bad_time.csv": "image,time\na.png,noon\n",
  }.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match=message) as error:
    run_embed(images, output, *options)
  assert "\n" not in str(error.value)


@pytest.mark.usefixtures("network")
def test_a_search_finds_the_same_person(photos: Path):
  run_embed(photos)
  query = photos / "inner" / "0002_c1_1.png"
  result = found(query, "--exclude_camera=1", "--k=3")
  assert (result["searched"], result["threshold"], result["false_accept_rate"]) == (8, 0.05, 1e-3)
  assert result["expected_false_accepts"] == pytest.approx(8e-3)
  assert result["calibrated_on"] == THRESHOLDS["calibrated_on"]
  [asked] = result["queries"]
  assert (asked["path"], asked["person"], asked["camera"]) == (str(query), "2", "1")
  assert [m["person"] for m in asked["matches"][:2]] == ["2", "2"]
  assert [m["camera"] in "23" for m in asked["matches"]] == [True] * 3
  gallery = Gallery.open("people")
  vectors = np.concatenate(gallery.shards)
  row = gallery.column("path").tolist().index(str(query))
  for match in asked["matches"]:
    distance = np.square(vectors[row] - vectors[match["row"]]).sum()
    assert match["distance"] == pytest.approx(distance, abs=1e-5)
    assert match["below_threshold"] == (distance < 0.05)
    assert match["branch_distances"].keys() == {"global", "fusion"}
    assert (match["track"], match["time"], match["images"]) == (None, None, 1)
  assert {match["below_threshold"] for match in asked["matches"]} == {True, False}
  looser = found(query, "--far=1e-2", "--k=3", "--exclude_camera=1,door")
  assert looser["threshold"] == 0.5
  assert looser["notes"] == ["No row is of camera door, which was to be left out."]


def test_the_data_of_the_threshold_are_chosen(photos: Path, network: Network):
  looser = THRESHOLDS | {
    "calibrated_on": "market1501, test people: 3 pairs",
    "whole": [{"false_accept_rate": 1e-3, "distance": 0.5, "true_accept_rate": 0.9}],
  }
  network.thresholds = of_several({"drawings": THRESHOLDS, "market1501": looser}, None)
  run_embed(photos)
  query = photos / "inner" / "0002_c1_1.png"
  result = found(query)
  assert result["threshold"] is None
  assert "calibrated on drawings, market1501; say on which" in result["notes"][0]
  assert found(query, "--calibrated_on=market1501")["threshold"] == 0.5
  result = found(query, "--calibrated_on=drawings")
  assert (result["threshold"], result["calibrated_on"]) == (0.05, THRESHOLDS["calibrated_on"])
  for option in ("--calibrated_on=msmt17", "--far=1e-3"):
    with pytest.raises(UserError, match="calibrated_on: its thresholds were calibrated on drawing"):
      found(query, option)
  network.thresholds = THRESHOLDS
  run_embed(photos, "single")
  with pytest.raises(UserError, match=r"on drawings, test people: .*; there are none of msmt17"):
    search.main(
      ["--gallery=single", f"--query={query}", "--output=a.json", "--calibrated_on=msmt17"]
    )


@pytest.mark.usefixtures("network")
def test_queries_of_a_gallery_need_no_network(photos: Path, network: Network):
  run_embed(photos)
  opened = len(network.opened)
  result = found("people", "--k=2")
  assert len(network.opened) == opened
  assert [q["matches"][0]["path"] for q in result["queries"]] == [
    q["path"] for q in result["queries"]
  ]
  assert len(result["queries"]) == 12


@pytest.mark.usefixtures("network")
def test_reranking_orders_as_evaluation_does(photos: Path):
  run_embed(photos)
  result = found(photos, "--rerank", "--k=12")
  vectors = np.concatenate(Gallery.open("people").shards)
  expected = np.concatenate(list(reranked_distances(vectors, vectors)))
  for query, distances in zip(result["queries"], expected):
    order = np.argsort(distances, kind="stable")
    assert [match["row"] for match in query["matches"]] == order.tolist()
    reranked = [match["reranked_distance"] for match in query["matches"]]
    assert reranked == pytest.approx(distances[order], abs=1e-5)
  assert "k-reciprocal" in result["notes"][0]


@pytest.mark.usefixtures("network")
def test_tracks_are_one_match_each(photos: Path, tmp_path: Path):
  names = sorted(path.name for path in (photos / "inner").iterdir())
  rows = [f"inner/{name},{name[:4]},{name[6]},{i // 3}" for i, name in enumerate(names)]
  (photos / "tracks.csv").write_text("\n".join(["image,person,track,camera", *rows]))
  run_embed(photos / "tracks.csv")
  result = found("people", "--tracks", "--k=20")
  assert result["tracklets"]
  assert result["searched"] == len(result["queries"])
  assert max(m["images"] for q in result["queries"] for m in q["matches"]) == 1
  assert "not on tracklets" in result["notes"][0]


@pytest.mark.usefixtures("network")
def test_csv_and_page_say_the_same(photos: Path, capsys):
  (photos / "inner" / "0003_c3_1.png").write_bytes(b"")
  run_embed(photos)
  printed = run_search(photos, "found.csv", "--k=4")
  assert "and 8 queries more" in printed
  assert "expect 0.011 of other people for each query" in printed
  with Path("found.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 11 * 4
  assert [row["rank"] for row in rows[:5]] == ["1", "2", "3", "4", "1"]
  assert rows[0]["path"] == rows[0]["query"]
  assert float(rows[1]["distance_global"]) > 0
  (photos / "inner" / "0001_c1_1.png").unlink()
  run_search(photos / "inner" / "0001_c2_1.png", "found.html", "--k=4")
  page = Path("found.html").read_text()
  assert page.count("data:image/jpeg") == 4  # the query and three; one is gone
  assert page.count("the file is gone") == 1
  assert page.count('class="right"') >= 2
  assert "expect 0.011 images of other people" in page
  assert not re.search(r"(?:src|href)=\"(?!data:)", page)
  run_search(photos, "found.html")  # its own page may be replaced
  assert "0003_c3_1.png: the file is empty" in Path("found.html").read_text()


def test_without_thresholds_nothing_is_marked(photos: Path, network: Network):
  network.thresholds = None
  run_embed(photos)
  result = found(photos / "inner" / "0001_c2_1.png")
  assert (result["threshold"], result["expected_false_accepts"]) == (None, None)
  assert "was not evaluated" in result["notes"][0]
  assert {m["below_threshold"] for m in result["queries"][0]["matches"]} == {None}
  run_search(photos, "found.html")
  assert 'class="right"' not in Path("found.html").read_text()
  with pytest.raises(UserError, match="it has no thresholds"):
    found(photos, "--far=1e-3")


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
  ("query", "output", "options", "message"),
  [
    ("photos", "found.txt", (), r"must end in one of \.html, \.json, \.csv"),
    ("photos", "mine.html", (), "is there already; --overwrite replaces it"),
    ("nowhere.png", "found.json", (), "no such folder"),
    ("broken.png", "found.json", (), r"broken\.png: the file is empty"),
    ("photos", "found.json", ("--far=0.3",), "there are 0.01, 0.001"),
    ("photos", "found.json", ("--k=0",), "--k: must be at least 1"),
    ("photos", "found.json", ("--exclude_camera=1,2,3",), "the filters leave none of its 12 rows"),
    ("photos", "found.json", ("--time=0,1",), "the filters leave none"),
  ],
)
def test_a_bad_search_is_one_line(photos: Path, tmp_path: Path, query, output, options, message):
  run_embed(photos)
  (tmp_path / "broken.png").touch()
  (tmp_path / "mine.html").touch()
  with pytest.raises(UserError, match=message) as error:
    run_search(query, output, *options)
  assert "\n" not in str(error.value)


def test_the_network_must_be_the_gallerys(photos: Path, network: Network, tmp_path: Path):
  run_embed(photos)
  network.weights = "a" * 64
  with pytest.raises(GalleryError, match="of another network"):
    found(photos)
  (tmp_path / "run").rmdir()
  with pytest.raises(SearchError, match="--network: missing; the gallery's is a fake"):
    found(photos)


@pytest.mark.usefixtures("network")
def test_a_package_that_is_not_there_is_one_line(photos: Path, monkeypatch: pytest.MonkeyPatch):
  for package in ("faiss", "lancedb"):
    monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(UserError, match=r"LanceDB is not installed; pip install .*\[lance\]"):
    run_embed(photos, "lance://people")
  run_embed(photos)
  with pytest.raises(UserError, match=r"FAISS is not installed; pip install .*\[search\]"):
    found(photos, "--index=ivf")


@pytest.mark.usefixtures("network")
def test_approximate_search_says_what_it_misses(
  photos: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
  pytest.importorskip("faiss", reason="FAISS is not installed: pip install .[search]")
  run_embed(photos)
  with pytest.raises(UserError, match="an index wants 1,000 images, and there are 12"):
    found(photos, "--index=ivf")
  monkeypatch.setattr(approximate, "_MIN_ROWS", 10)
  monkeypatch.setattr(approximate, "_TRAINING_ROWS", 4)
  monkeypatch.setattr(approximate, "_SAMPLE", 6)
  monkeypatch.setattr(approximate, "_COMPONENTS", 8)
  query = photos / "inner" / "0002_c1_1.png"
  result = found(query, "--index=ivf", "--k=3")
  assert [match["person"] for match in result["queries"][0]["matches"]] == ["2"] * 3
  assert result["searched"] == 12
  assert (
    "of the ten nearest images of 6 of the gallery's own it finds 100.0 %" in result["notes"][0]
  )
  assert "building one of 12 images" in capsys.readouterr().out
  for option in ("--rerank", "--tracks"):
    with pytest.raises(SearchError, match=f"{option}: compares all images"):
      found(query, "--index=ivf", option)


@pytest.mark.usefixtures("network")
def test_lancedb_takes_the_place_of_a_folder(photos: Path, capsys):
  pytest.importorskip("lancedb", reason="LanceDB is not installed: pip install .[lance]")
  place = "lance://people_table"
  assert run_embed(photos, place) == 0
  assert run_embed(photos, place) == 0
  printed = capsys.readouterr().out
  assert f"{place} has 12 of the images already" in printed
  assert f"{place}: 0 images added, 12 in all" in printed
  query = photos / "inner" / "0002_c1_1.png"
  run_embed(photos)
  local = found(query, "--exclude_camera=1", "--k=3")
  Path("remote.json").unlink(missing_ok=True)
  arguments = [f"--gallery={place}", f"--query={query}", "--exclude_camera=1", "--k=3"]
  search.main([*arguments, "--output=remote.json"])
  remote = json.loads(Path("remote.json").read_text())
  assert (remote["searched"], remote["threshold"]) == (8, 0.05)
  ours, theirs = (result["queries"][0]["matches"] for result in (local, remote))
  assert [match["path"] for match in ours] == [match["path"] for match in theirs]
  for option in ("--rerank", "--tracks", "--index=ivf"):
    with pytest.raises(SearchError, match=f"{option}: only in a gallery that is a folder"):
      search.main([*arguments, "--output=other.json", option])
  with pytest.raises(UserError, match=r"must end in \.npz"):
    run_embed(photos, place, "--format=npz")


@pytest.mark.usefixtures("network")
def test_chromium_shows_the_page(photos: Path, tmp_path: Path):
  if reason := browser.missing():
    pytest.skip(reason)
  run_embed(photos)
  run_search(photos / "inner", "found.html", "--rerank", "--k=12")
  path = tmp_path / "found.html"
  with browser.running_browser(tmp_path / "profile") as chromium:
    for width, height, phone in ((1366, 768, False), (390, 844, True)):
      chromium.resize(width, height, phone)
      chromium.console()
      chromium.requested()
      chromium.open(path)
      asked = [url for url in chromium.requested() if url.startswith(("file:", "http"))]
      assert (chromium.console(), asked) == ([], [path.as_uri()])
      sizes = chromium.evaluate("return [...document.images].map(image => image.naturalWidth)")
      assert len(sizes) == 12 * 13
      assert min(sizes) > 0
      assert chromium.evaluate("return document.documentElement.scrollWidth") <= width
