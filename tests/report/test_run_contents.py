"""What a run's report shows of its queries' parts, its steps and its first weights."""

import re
from pathlib import Path

import numpy as np
import pytest

from magnifier_jax.data.dataset import EncodedImage, ReidSplit
from magnifier_jax.data.image_files import encode_png
from magnifier_jax.report.provenance import Provenance
from magnifier_jax.report.run_contents import _first_weights, _overlays, _steps
from magnifier_jax.workdir.origin import ORIGIN


def test_queries_without_given_parts_show_the_predicted_ones_alone():
  given = np.zeros((16, 8), np.uint8)
  given[4:8] = 2
  image = encode_png(np.zeros((16, 8, 3), np.uint8))
  records = [
    EncodedImage(image, encode_png(labels))._asdict() for labels in (given, np.zeros_like(given))
  ]
  query = ReidSplit("query", np.arange(2), np.zeros(2), ("a.png", "b.png"), records)
  predicted = np.ones((2, 2, 1), np.uint8)
  with_labels, without = _overlays(query, predicted)
  np.testing.assert_array_equal(with_labels.labelled, given)
  assert without.labelled is None
  assert without.predicted.all()


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (None, "drawn at random"),
    ('{"path": "a.pth", "sha256": "12ab"}', "path a.pth, sha256 12ab"),
    ("{", r".*initial_weights\.json is damaged"),
    ("[]", r".*initial_weights\.json is damaged"),
  ],
)
def test_first_weights_are_said(tmp_path: Path, content: str | None, said: str):
  if content is not None:
    (tmp_path / ORIGIN).write_text(content)
  assert re.fullmatch(said, _first_weights(tmp_path))


@pytest.mark.parametrize(
  ("step", "planned", "said"),
  [(40, 80, "40 of 80"), (0, 0, "0; these weights were not trained here")],
)
def test_steps_are_said_beside_those_planned(step: int, planned: int, said: str):
  assert _steps(Provenance({}, step, planned, validation_people=0, chosen_on="")) == said
