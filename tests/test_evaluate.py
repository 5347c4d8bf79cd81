"""The table that people read on the console."""

import dataclasses

import numpy as np

from magnifier_jax.evaluate import results_table
from magnifier_jax.evaluation.pair_distances import PairDistances
from magnifier_jax.evaluation.ranking import RankingMetrics
from magnifier_jax.report.published import NOTHING_PUBLISHED, PublishedResult, PublishedTable

METRICS = RankingMetrics(
  cmc=np.array([0.25, 0.5, 0.5, 0.5, *[0.75] * 46]),
  mAP=0.5,
  mAP_trapezoid=0.4,
  mINP=0.125,
  operating_points=(),
  num_queries=4,
  num_skipped_queries=1,
  average_precision=np.full(5, 0.5),
  pair_distances=PairDistances(
    edges=np.arange(2.0), genuine=np.ones(1, np.int64), impostor=np.ones(1, np.int64)
  ),
)


def test_table_has_our_rows_then_the_published_ones_from_weakest_to_best():
  rows = {
    "best, with a name that is longer than others": PublishedResult(rank1=90.0, mAP=80.0),
    "weakest": PublishedResult(rank1=70.0, mAP=60.0),
  }
  results = {"all": METRICS, "global": dataclasses.replace(METRICS, mAP=0.25)}
  lines = results_table(results, PublishedTable(rows, "a paper"), ()).splitlines()
  assert lines[1].split() == ["all", "25.0", "75.0", "75.0", "75.0", "50.0", "12.5"]
  assert lines[2].split()[-2:] == ["25.0", "12.5"]
  assert lines[3] == "4 queries; 1 left out, without a match"
  assert lines[4] == "published (a paper):"
  assert lines[5].split() == ["weakest", "70.0", "–", "–", "–", "60.0", "–"]
  assert lines[6].startswith("best, with a name that is longer than others ")
  assert len({len(line) for line in (*lines[:3], *lines[5:])}) == 1


def test_table_without_published_rows_says_nothing_of_them():
  assert "published" not in results_table({"all": METRICS}, NOTHING_PUBLISHED, ())


def test_table_says_what_must_be_known_below_the_results():
  lines = results_table({"all": METRICS}, NOTHING_PUBLISHED, ["Beware.", "And why."]).splitlines()
  assert lines[-2:] == ["Beware.", "And why."]
