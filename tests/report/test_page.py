"""The report: its structure, its numbers, and how a browser shows it."""

import base64
import dataclasses
import html.parser
import io
import math
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from magnifier_jax.body_parts import PARTS
from magnifier_jax.evaluation.pair_distances import OperatingPoint, PairDistances
from magnifier_jax.files.whole_file import WriteError
from magnifier_jax.report import charts as report_charts
from magnifier_jax.report import pictures as report_pictures
from magnifier_jax.report.contents import (
  PartOverlay,
  QueryCase,
  ReportData,
  ReportError,
  ResultRow,
  RetrievedImage,
)
from magnifier_jax.report.page import render_report, write_report
from magnifier_jax.report.published import PublishedResult, PublishedTable
from tests.full_disk import full_disk
from tests.report import browser

PICTURE_HW = (128, 64)
COARSE_PARTS = np.repeat(np.arange(8, dtype=np.uint8)[:, None], 4, axis=1)
UNBREAKABLE = "a_published_row_with_a_name_that_no_browser_can_break_into_lines"


class Page(html.parser.HTMLParser):
  """The tags of a page with their attributes, and its text."""

  def __init__(self, page: str):
    super().__init__()
    self.tags: list[tuple[str, dict[str, str]]] = []
    self.text = ""
    self.feed(page)

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    self.tags.append((tag, dict(attrs)))

  def handle_data(self, data: str) -> None:
    self.text += f"{data} "

  def all(self, tag: str) -> list[dict[str, str]]:
    return [attributes for name, attributes in self.tags if name == tag]


def drawn_figure(seed: int) -> np.ndarray:
  """A drawn figure in random clothes, [128, 64, 3]."""
  colours = [tuple(colour) for colour in np.random.default_rng(seed).integers(0, 256, (4, 3))]
  picture = Image.new("RGB", PICTURE_HW[::-1], colours[0])
  draw = ImageDraw.Draw(picture)
  draw.ellipse((24, 6, 40, 24), fill=colours[1])
  draw.rectangle((18, 25, 46, 70), fill=colours[2])
  draw.rectangle((20, 71, 44, 122), fill=colours[3])
  return np.asarray(picture)


def query_case(kind: str, average_precision: float, correct_ranks: tuple[int, ...]) -> QueryCase:
  results = tuple(
    RetrievedImage(drawn_figure(rank), 1500 + rank, 2, 0.1 * rank, rank in correct_ranks)
    for rank in range(1, 11)
  )
  return QueryCase(kind, average_precision, drawn_figure(0), 1467, 1, results)


def training_log() -> list[dict[str, float]]:
  terms = ("total", "global_id", "global_triplet", "segmentation", "adversarial_id", "diversity")
  log = []
  for step in range(20, 420, 20):
    losses = {f"loss/{term}": 5 * math.exp(-step / 200) for term in terms}
    losses |= {f"loss/part_id/{part}": part + 100 / step for part in range(8)}
    log.append({"step": step, "epoch": step / 40, "learning_rate": 1e-4, **losses})
  return [*log, {"step": 200, "eval/mAP": 0.25, "eval/rank1": 0.5}]


def summary(rank1: float) -> dict[str, float]:
  return {"rank1": rank1, "rank5": 0.8, "rank10": 0.9, "rank20": 1.0, "mAP": 0.5, "mINP": 0.125}


@pytest.fixture(scope="module")
def data() -> ReportData:
  return ReportData(
    title="MagnifierNet on <drawn> figures",
    facts={"command": "python -m magnifier_jax.main --config=" + "long/" * 40, "seed": "0"},
    results=(
      ResultRow("all", summary(0.6), np.linspace(0.6, 1.0, 50), published="all, published"),
      ResultRow("global branch", summary(0.4), np.linspace(0.4, 0.9, 50), published="baseline"),
      ResultRow("adversarial branch", summary(0.3)),
    ),
    num_queries=1398,
    num_skipped_queries=2,
    num_gallery=5328,
    published=PublishedTable(
      {
        "all, published": PublishedResult(rank1=82.4, mAP=79.6),
        "baseline": PublishedResult(rank1=30.0, mAP=50.0),
        UNBREAKABLE: PublishedResult(rank1=60.0, mAP=90.0),
      },
      "a table",
    ),
    notes=("A warning & a hint.",),
    distances=PairDistances(
      edges=np.linspace(0, 2, 5), genuine=np.array([3, 2, 1, 0]), impostor=np.array([0, 10, 20, 30])
    ),
    operating_points=(OperatingPoint(1e-2, 0.75, 0.5), OperatingPoint(1e-3, 0.25, 0.3)),
    training_log=training_log(),
    queries=(
      query_case("worst", 0.01, (10,)),
      query_case("best", 1.0, (1, 2, 3)),
      query_case("median", 0.5, (2, 5)),
    ),
    overlays=tuple(
      PartOverlay(drawn_figure(seed), COARSE_PARTS, labelled)
      for seed, labelled in ((0, COARSE_PARTS), (1, None))
    ),
  )


@pytest.fixture(scope="module")
def source(data: ReportData) -> str:
  return render_report(data)


@pytest.fixture(scope="module")
def page(source: str) -> Page:
  return Page(source)


def table_rows(page_source: str) -> dict[str, list[str]]:
  """Row heading → cells; of rows with the same heading, the first."""
  rows: dict[str, list[str]] = {}
  for row in re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", page_source):
    heading, cells = row.split("</th>")
    rows.setdefault(heading, re.findall(r"<td>(.*?)</td>", cells))
  return rows


def test_everything_is_inside_the_page(source, page):
  images = page.all("img")
  # 2 + 9 figures, 3 queries with 10 results each, 3 + 2 pictures of parts.
  assert len(images) == 2 + 9 + 3 * 11 + 5
  assert all(image["alt"].strip() and image["src"].startswith("data:image/") for image in images)
  for _, attributes in page.tags:
    for name in ("src", "href", "srcset", "action", "data"):
      assert attributes.get(name, "data:").startswith("data:")
  assert not page.all("script")
  assert not re.search(r"url\(|@import|https?:", source)


def test_tables_are_captioned_and_headings_escaped(page):
  assert len(page.all("table")) == len(page.all("caption")) == 3
  assert not page.all("drawn")
  assert "MagnifierNet on <drawn> figures" in page.text


def test_results_stand_beside_published_numbers(source):
  rows = table_rows(source)
  assert rows["all"] == ["60.0", "80.0", "90.0", "100.0", "50.0", "12.5"]
  assert rows["all, published"] == ["82.4", "79.6", "all", "−22.4", "−29.6"]
  assert rows["baseline"] == ["30.0", "50.0", "global branch", "+10.0", "+0.0"]
  assert rows[UNBREAKABLE] == ["60.0", "90.0", "–", "–", "–"]  # nothing here measures the same
  assert rows["0.001"] == ["25.0", "0.3000"]


def test_what_must_be_known_is_said_above_the_numbers(source):
  assert "A warning &amp; a hint." in source[: source.index("<main>")]


def test_counts_of_queries_are_stated(page):
  assert "1,398 queries evaluated and 2 left out" in page.text
  assert "5,328 gallery images" in page.text


def test_a_metric_that_is_missing_or_not_a_number_is_a_dash(data):
  rows = (
    ResultRow("all", {"rank1": 0.5, "mAP": math.nan}, published="baseline"),
    ResultRow("flip", {"mAP": 0.5}),
  )
  rows = table_rows(render_report(dataclasses.replace(data, results=rows)))
  assert rows["all"] == ["50.0", "–"]
  assert rows["flip"] == ["–", "50.0"]
  assert rows["baseline"] == ["30.0", "50.0", "all", "+20.0", "–"]


def test_matches_are_told_apart_without_colour(source, page):
  signs = re.findall(r'<span class="sign" aria-hidden="true">(.)</span>', source)
  assert signs[:10] == ["✓"] * 3 + ["✗"] * 7, "the best query comes first"
  assert (signs.count("✓"), signs.count("✗")) == (6, 24)
  assert source.count('<figure class="right">') == 6
  alts = [image["alt"] for image in page.all("img")]
  assert "Rank 10: person 1510, camera 2, right" in alts
  assert alts.count("Query: person 1467, camera 1") == 3


def test_sections_without_data_say_so(data):
  empty = {"distances": None, "operating_points": (), "training_log": ()}
  empty |= {"published": PublishedTable({}, "a table")}
  empty |= {"results": (ResultRow("all", summary(0.5)),), "queries": (), "overlays": ()}
  page = Page(render_report(dataclasses.replace(data, **empty)))
  assert not page.all("img")
  assert len(page.all("table")) == 1
  for sentence in (
    "No published numbers to compare with: a table.",
    "No query pictures were given to this report.",
    "No part segmentation was given to this report.",
    "No training log was given to this report.",
  ):
    assert sentence in page.text


def test_the_same_data_give_the_same_page(data, source):
  assert render_report(data) == source


def test_figures_take_the_colour_scheme_and_name_their_lines(data):
  chart = report_charts.distance_chart(data.distances, data.operating_points)
  svg = base64.b64decode(chart.uri.removeprefix("data:image/svg+xml;base64,")).decode()
  for text in ("genuine, 6 pairs", "impostor, 60 pairs", ">0.001<", "squared Euclidean distance"):
    assert text in svg
  assert "currentColor" in svg
  assert report_charts._INK not in svg
  assert "near 0.25 for genuine pairs and near 1.25 for impostor pairs" in chart.alt


def test_training_panels_follow_the_step():
  log = [
    {"step": 0, "eval/mAP": 0.125, "eval/rank1": 0.25},
    {"step": 10, "epoch": 1.0, "loss/total": 9.0, "loss/fusion_id": 3.0, "grad_norm": 1.0},
    {"step": 30, "epoch": 3.0, "loss/total": 7.0, "loss/fusion_id": 2.0},
    {"step": 25, "eval/mAP": 0.75, "eval/rank1": 0.5},
    {"step": 20, "epoch": 2.0, "loss/total": 8.0},
    {"step": 30, "epoch": 3.0, "loss/total": 6.0},
  ]
  total, fusion, evaluation = report_charts.training_panels(log)
  assert {panel.axis for panel in (total, fusion, evaluation)} == {"epoch"}
  assert (total.title, fusion.title) == ("total loss", "fusion ID loss")
  np.testing.assert_array_equal(total.curves[0].x, [1, 2, 3])
  np.testing.assert_array_equal(total.curves[0].y, [9, 8, 6])
  np.testing.assert_array_equal(fusion.curves[0].x, [1, 3])
  assert [curve.name for curve in evaluation.curves] == ["rank-1", "mAP"]
  np.testing.assert_array_equal(evaluation.curves[1].x, [0, 2.5])
  np.testing.assert_array_equal(evaluation.curves[1].y, [12.5, 75])
  (panel,) = report_charts.training_panels([{"step": 5, "loss/total": 1.0}])
  assert (panel.axis, panel.curves[0].x) == ("step", [5])


def test_the_losses_of_all_parts_share_a_panel_and_weights_have_none():
  record = {f"loss/part_id/{part}": float(part) for part in range(8)}
  record |= {"loss/adversarial_beta": 0.7} | {f"loss/part_beta/{part}": 0.5 for part in range(8)}
  (panel,) = report_charts.training_panels([{"step": 20, **record}])
  assert panel.title == "part ID loss"
  assert [(curve.name, curve.y[0]) for curve in panel.curves][::7] == [
    ("background", 0),
    ("foot", 7),
  ]
  assert report_charts.training_chart(panel).wide
  assert len({report_charts._line_style(index) for index in range(8)}) == 8


def test_parts_are_painted_on_the_picture_by_their_share_of_it():
  image = np.full((16, 8, 3), 200, np.uint8)
  painted = report_pictures.paint_parts(image, COARSE_PARTS)
  assert painted.shape == image.shape
  assert painted.dtype == np.uint8
  for part, (_, colour) in enumerate(PARTS):
    expected = 0.4 * 200 + 0.6 * np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    rows = painted[2 * part : 2 * part + 2].reshape(-1, 3)
    np.testing.assert_array_equal(rows, np.tile(np.rint(expected), (16, 1)))
  assert len({part.colour for part in PARTS}) == 8


def test_photographs_survive_encoding():
  image = drawn_figure(3)
  encoded = report_pictures.photograph_uri(image).removeprefix("data:image/jpeg;base64,")
  decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
  assert decoded.shape == image.shape
  assert np.abs(decoded.astype(int) - image).mean() < 4


def test_a_report_replaces_the_last_one_whole_or_not_at_all(tmp_path, data, source, capsys):
  path = tmp_path / "report.html"
  path.write_text("the last one")
  with full_disk(100), pytest.raises(WriteError, match=r"report\.html: .*; free some space there"):
    write_report(path, data)
  assert path.read_text() == "the last one"
  assert list(tmp_path.iterdir()) == [path]
  write_report(path, data)
  assert path.read_text(encoding="utf-8") == source
  assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path, data):
  with pytest.raises(ReportError, match=r"path: the folder .*nowhere does not exist"):
    write_report(tmp_path / "nowhere" / "report.html", data)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda data: dataclasses.replace(data, results=()), "results: empty"),
    (
      lambda data: dataclasses.replace(data, facts={"seed": 0}),
      r"facts\['seed'\]: must be a string, got 0",
    ),
    (
      lambda data: dataclasses.replace(data, published=PublishedTable({}, "")),
      r"results\['all'\].published: 'all, published' is no published row; there are none",
    ),
    (
      lambda data: dataclasses.replace(data, training_log=[{"step": 1}, {"loss/total": 1.0}]),
      r"training_log: record 2 has no 'step'; got \['loss/total'\]",
    ),
    (
      lambda data: ResultRow("all", {}, np.zeros((2, 3))),
      r"results\['all'\].cmc: must be of shape \[max_rank\], got \(2, 3\)",
    ),
    (
      lambda data: dataclasses.replace(data.queries[0], image=np.zeros((4, 4, 3))),
      r"queries\[…\].image: must be uint8 of shape \[H, W, 3\], got float64 of shape \(4, 4, 3\)",
    ),
    (lambda data: dataclasses.replace(data.queries[0], kind="bad"), r"kind: must be best, median"),
    (
      lambda data: PartOverlay(drawn_figure(0), np.full((4, 4), 8, np.uint8)),
      r"overlays\[…\].predicted: parts are numbered 0…7, got 8",
    ),
    (
      lambda data: PartOverlay(drawn_figure(0), COARSE_PARTS, COARSE_PARTS[0]),
      r"overlays\[…\].labelled: must be uint8 of shape \[h, w\]",
    ),
  ],
)
def test_bad_data_name_the_field(data, make, message):
  with pytest.raises(ReportError, match=message):
    make(data)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
  if reason := browser.missing():
    pytest.skip(reason)
  with browser.running_browser(tmp_path_factory.mktemp("profile")) as running:
    yield running


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
  ("width", "height", "phone"), [(1366, 768, False), (390, 844, True)], ids=["laptop", "phone"]
)
def test_chromium_shows_the_page(chromium, tmp_path, source, width, height, phone, scheme):
  path = tmp_path / "report.html"
  path.write_text(source, encoding="utf-8")
  chromium.resize(width, height, phone)
  chromium.prefer_colour_scheme(scheme)
  chromium.console()
  chromium.requested()
  chromium.open(path)
  assert chromium.console() == []
  assert [url for url in chromium.requested() if not url.startswith("data:")] == [path.as_uri()]
  broken = "return [...document.images].filter(image => !image.naturalWidth).map(i => i.alt)"
  assert chromium.evaluate(broken) == []
  assert chromium.evaluate("return document.images.length") == 49
  assert chromium.evaluate("return innerWidth") == width
  assert chromium.evaluate("return document.documentElement.scrollWidth") <= width
  background = chromium.evaluate("return getComputedStyle(document.body).backgroundColor")
  assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
