"""What a run's report shows of its queries' parts."""

import numpy as np

from magnifier_jax.data.dataset import EncodedImage, ReidSplit
from magnifier_jax.data.image_files import encode_png
from magnifier_jax.report.collection import _overlays


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
