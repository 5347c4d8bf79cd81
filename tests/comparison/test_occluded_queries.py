"""Results of queries that are partly hidden, of several runs."""

from pathlib import Path

import pytest

from magnifier_jax.comparison.run_results import CompareError
from magnifier_jax.comparison.runs import compare
from magnifier_jax.comparison.tables import as_json, as_markdown
from tests.tools.evaluated_runs import accuracies, small, write_run


def occluded(mean_ap: float, fill: str = "mean") -> dict:
  """What `metrics.json` holds of one part and one share of the image that were hidden."""

  def hidden(share: float, lost: float) -> dict:
    rows = {row: accuracies(mean_ap / 2, mean_ap - lost) for row in ("all", "global")}
    return {"hidden_share": share, **rows}

  parts, bottom = {"head": hidden(0.1, 0.05)}, {"0.25": hidden(0.25, 0.1)}
  found = {"mask": "predicted", "fill": fill, "seed": 0, "parts": parts, "bottom": bottom}
  whole = accuracies(0.5, mean_ap)
  return {"all": whole, "global": whole, "fusion": whole, "occlusion": found}


def test_occluded_queries_have_a_table(tmp_path: Path):
  runs = [
    write_run(tmp_path / "a", small(), occluded(0.3)),
    write_run(tmp_path / "b", small(seed=1), occluded(0.4)),
    write_run(tmp_path / "c", small("fusion"), occluded(0.2)),
    write_run(tmp_path / "d", small("adversarial"), {"all": accuracies(0.1, 0.2)}),
  ]
  [comparison] = compare(runs)
  text = as_markdown([comparison]).partition("mAP by what is hidden in the queries (%). One thing")[
    2
  ]
  assert "its mean colour (seed 0)" in text
  heading = "| run | embedding | nothing | head | bottom 25% |"
  assert heading in text
  rows = text.partition(heading)[2]
  assert "| cuhk03_small | all | 35.0 ± 7.1 | 30.0 ± 7.1 | 25.0 ± 7.1 |" in rows
  assert "| cuhk03_small_fusion | global | 20.0 | 15.0 | 10.0 |" in rows
  assert "adversarial" not in rows.partition("- all runs")[0]
  first, *_, last = as_json([comparison])["test_sets"][0]["groups"]
  head = first["occluded_queries"]["hidden"]["head"]["global"]
  assert head["mAP"]["values"] == pytest.approx([0.25, 0.35])
  assert head["rank1"]["values"] == pytest.approx([0.15, 0.2])
  assert last["occluded_queries"] is None


def test_seeds_that_were_occluded_otherwise_are_not_averaged(tmp_path: Path):
  runs = [
    write_run(tmp_path / "a", small(), occluded(0.3)),
    write_run(tmp_path / "b", small(seed=1), occluded(0.4, fill="noise")),
    write_run(tmp_path / "c", small("fusion"), occluded(0.2, fill="noise")),
  ]
  tables = as_markdown(compare(runs)).split("mAP by what is hidden")[1:]
  assert len(tables) == 1
  assert "noise (seed 0)" in tables[0]
  assert "| cuhk03_small |" not in tables[0]


def test_damaged_results_of_occluded_queries_are_named(tmp_path: Path):
  rows = occluded(0.3)
  del rows["occlusion"]["parts"]["head"]["hidden_share"]
  write_run(tmp_path, small(), rows)
  with pytest.raises(
    CompareError, match=r"metrics\.json: occlusion: damaged; evaluate the run again"
  ):
    compare([tmp_path])
