"""Which published numbers a run stands beside."""

from pathlib import Path

import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import ConfigError
from magnifier_jax.report import published as published_lib
from magnifier_jax.report.published import REFERENCE_ROWS, published_row, published_table


def test_tables_are_those_of_the_authors():
  cuhk03, duke = published_table("cuhk03_np/labeled"), published_table("dukemtmc_reid")
  assert cuhk03.rows["all"] == (82.4, 79.6)
  assert duke.rows["all, re-ranked"] == (91.8, 90.6)
  names = {row.published for row in REFERENCE_ROWS} - {""}
  assert cuhk03.rows.keys() == duke.rows.keys() == names | {"all, re-ranked"}
  assert duke.source == "the authors' read-me: DukeMTMC-reID, ImageNet weights"


@pytest.mark.parametrize("dataset", ["cuhk03_np/detected", "market1501", "image_list/mine"])
def test_other_data_sets_have_none(dataset: str):
  assert published_table(dataset) == ({}, f"none are known for {dataset}")


def test_a_network_of_other_data_stands_beside_others_of_it():
  table = published_table("dukemtmc_reid", trained_on="market1501")
  assert table.rows["OSNet-AIN"] == (52.4, 30.5)
  assert published_row(get_config().to_dict(), "all", table) == ""  # of another network
  assert published_table("dukemtmc_reid", trained_on="dukemtmc_reid").rows["all"] == (90.0, 80.7)
  nothing = published_table("dukemtmc_reid", trained_on=("market1501", "dukemtmc_reid"))
  assert nothing == ({}, "none are known for market1501 + dukemtmc_reid -> dukemtmc_reid")


def test_validation_people_have_none():
  rows, why = published_table("cuhk03_np/labeled", validation_people=100)
  assert not rows
  assert why == "published numbers are of the test people, these are not"


def test_other_rules_about_cameras_have_none():
  rows, why = published_table("cuhk03_np/labeled", camera_rule="ignore")
  assert not rows
  assert why == "published numbers are of camera_rule=cross_camera, these are not"


def test_reranked_results_have_a_row_of_their_own():
  table = published_table("cuhk03_np/labeled")
  config = get_config().to_dict()
  assert published_row(config, "all, re-ranked", table) == "all, re-ranked"
  assert published_row(config, "fusion", table) == ""
  baseline = get_config("baseline").to_dict()
  assert published_row(baseline, "all, re-ranked", table) == ""  # published without re-ranking only


@pytest.mark.parametrize(
  "content", ["no = toml =", "a = 3", '["x"]\nsource = ""\nrows.all = { rank1 = 1.0 }\n', None]
)
def test_a_broken_file_is_named(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
):
  if content is not None:
    (tmp_path / "published.toml").write_text(content)
  monkeypatch.setattr(published_lib, "configs_folder", lambda: tmp_path)
  published_lib._tables.cache_clear()
  try:
    with pytest.raises(ConfigError, match=r"published\.toml: not a file of published numbers"):
      published_table("cuhk03_np/labeled")
  finally:
    published_lib._tables.cache_clear()
