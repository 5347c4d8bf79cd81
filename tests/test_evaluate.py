"""What an evaluation leaves: the table that people read, and the numbers on the disk."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs.cuhk03 import get_config
from magnifier_jax import evaluate
from magnifier_jax.config import Config
from magnifier_jax.evaluate import results_table, show
from magnifier_jax.evaluation.embedding import Embeddings
from magnifier_jax.evaluation.embeddings_file import (
  IdentifiedEmbeddings,
  SavedEmbeddings,
  save_embeddings,
)
from magnifier_jax.evaluation.identities import Identities
from magnifier_jax.evaluation.pair_distances import PairDistances
from magnifier_jax.evaluation.ranking import RankingMetrics
from magnifier_jax.files.whole_file import WriteError
from magnifier_jax.report.provenance import Provenance, unknown_provenance
from magnifier_jax.report.published import NOTHING_PUBLISHED, PublishedResult, PublishedTable
from tests.full_disk import full_disk

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


@pytest.fixture
def source() -> Provenance:
  """A run of which all is known but the weights."""
  return unknown_provenance(Config.from_config_dict(get_config("small")))._replace(step=7)


def test_the_numbers_are_written_before_anything_is_printed(
  source: Provenance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  def fail(_: str) -> None:
    raise UnicodeEncodeError("ascii", "–", 0, 1, "no such character")

  monkeypatch.setattr(evaluate, "say", fail)
  with pytest.raises(UnicodeEncodeError):
    show(source, tmp_path, {"all": METRICS})
  written = json.loads((tmp_path / "metrics.json").read_text())
  assert (written["step"], written["all"]["mAP"]) == (7, 0.5)


def test_a_full_disk_leaves_the_numbers_before(source: Provenance, tmp_path: Path, capsys):
  (tmp_path / "metrics.json").write_text("{}")
  with full_disk(), pytest.raises(WriteError, match=r"metrics\.json: .*; free some space there"):
    show(source, tmp_path, {"all": METRICS})
  assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
  assert (tmp_path / "metrics.json").read_text() == "{}"


def write_embeddings(path: Path) -> None:
  random = np.random.default_rng(0)
  vectors = Embeddings({"mine": random.standard_normal((6, 8)).astype(np.float32)})
  query, gallery = (
    IdentifiedEmbeddings(vectors, Identities(np.arange(6) // 2, np.full(6, camera)))
    for camera in (1, 2)
  )
  save_embeddings(path, SavedEmbeddings(query, gallery))


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_own_features_on_any_console(repository: Path, tmp_path: Path, encoding: str):
  """The paths begin with the home, and the console may not know dashes."""
  home = tmp_path / "home"
  home.mkdir()
  write_embeddings(home / "own.npz")
  done = subprocess.run(
    [
      *(sys.executable, "-m", "magnifier_jax.main", "--config=configs/cuhk03.py"),
      *("--mode=evaluate", "--workdir=~/run", "--config.evaluation.embeddings=~/own.npz"),
    ],
    cwd=repository,
    env={
      **os.environ,
      "HOME": str(home),
      "PYTHONIOENCODING": encoding,
      "XDG_CACHE_HOME": "/proc/x",
    },
    capture_output=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  metrics = json.loads((home / "run" / "metrics.json").read_text())
  assert metrics["all"]["num_queries"] == 6
  assert ("–" if encoding == "utf-8" else " - ") in done.stdout.decode(encoding)
  assert not (repository / "~").exists()


def test_a_log_on_a_full_disk_does_not_end_a_run(repository: Path, tmp_path: Path):
  write_embeddings(tmp_path / "own.npz")
  with open("/dev/full", "w") as full:
    done = subprocess.run(
      [
        *(sys.executable, "-m", "magnifier_jax.main", "--config=configs/cuhk03.py"),
        *("--mode=evaluate", f"--workdir={tmp_path / 'run'}"),
        f"--config.evaluation.embeddings={tmp_path / 'own.npz'}",
      ],
      cwd=repository,
      stdout=full,
      stderr=subprocess.PIPE,
      check=False,
    )
  assert (done.returncode, done.stderr) == (0, b"")
  assert (tmp_path / "run" / "metrics.json").exists()
