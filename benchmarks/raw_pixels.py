"""The baseline that needs no network: ranks a data set by its standardised pixels.

python -m benchmarks.raw_pixels --config=configs/cuhk03.py:small
"""

import os

import numpy as np
from absl import app
from ml_collections import config_flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)


def main(argv: list[str]) -> None:
  """Prints the accuracy of raw pixels, in percent."""
  from magnifier_jax.config import Config
  from magnifier_jax.data import dataset as dataset_lib
  from magnifier_jax.data.dataset import ReidSplit
  from magnifier_jax.data.pipeline import evaluation_batches
  from magnifier_jax.evaluation.embedding import l2_normalize
  from magnifier_jax.evaluation.ranking import Identities, evaluate_ranking

  del argv
  config = Config.from_config_dict(_CONFIG.value)
  dataset = dataset_lib.load(config.data)

  def pixels(split: ReidSplit) -> np.ndarray:
    rows = [batch.image[batch.mask != 0] for batch in evaluation_batches(split, config)]
    flat = np.concatenate(rows).reshape(len(split), -1).astype(np.float32)
    return l2_normalize(flat - flat.mean(axis=1, keepdims=True))

  metrics = evaluate_ranking(
    pixels(dataset.query),
    pixels(dataset.gallery),
    Identities(dataset.query.person_id, dataset.query.camera_id),
    Identities(dataset.gallery.person_id, dataset.gallery.camera_id),
  )
  for name, value in metrics.summary().items():
    print(f"{name}: {value:g}" if name.startswith("num_") else f"{name}: {100 * value:.2f} %")


if __name__ == "__main__":
  app.run(main)
