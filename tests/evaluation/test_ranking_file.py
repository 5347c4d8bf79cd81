"""`ranking.csv`: each query's first gallery images, by the rules of the metrics."""

import csv
from pathlib import Path

import numpy as np

from magnifier_jax.evaluation.embedding import Embeddings
from magnifier_jax.evaluation.embeddings_file import IdentifiedEmbeddings
from magnifier_jax.evaluation.identities import Identities
from magnifier_jax.evaluation.ranking_file import write_ranking


def side(angles: list[float], people: list[int], cameras: list[int], name: str):
  """Unit vectors of some directions."""
  vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
  paths = [f"{name}/{i}.jpg" for i in range(len(angles))]
  return IdentifiedEmbeddings(
    Embeddings({"global": vectors}), Identities(np.array(people), np.array(cameras)), paths
  )


def test_ignored_images_have_no_rank(tmp_path: Path):
  query = side([0.0, 1.0], [1, 2], [1, 1], "query")
  # Of person 1: before the same camera, before another; then junk, and person 2.
  gallery = side([0.01, 0.3, 0.02, 0.9], [1, 1, -1, 2], [1, 2, 2, 2], "gallery")
  write_ranking(tmp_path / "ranking.csv", query, gallery, 9)
  with (tmp_path / "ranking.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert [(r["query"], r["rank"], r["gallery"], r["correct"]) for r in rows] == [
    ("query/0.jpg", "1", "gallery/1.jpg", "1"),
    ("query/0.jpg", "2", "gallery/3.jpg", "0"),
    ("query/1.jpg", "1", "gallery/3.jpg", "1"),
    ("query/1.jpg", "2", "gallery/1.jpg", "0"),
    ("query/1.jpg", "3", "gallery/0.jpg", "0"),
  ]
  assert float(rows[0]["distance"]) == np.float32(f"{2 - 2 * np.cos(0.3):.6f}")
  assert [rows[1][f"gallery_{what}"] for what in ("row", "person", "camera")] == ["3", "2", "2"]
  write_ranking(tmp_path / "first.csv", query, gallery._replace(paths=None), 1)
  lines = (tmp_path / "first.csv").read_text().splitlines()
  assert lines[1].startswith("query/0.jpg,0,1,1,1,,1,1,2,")
  assert len(lines) == 3
