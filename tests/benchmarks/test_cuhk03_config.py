"""The benchmarks' config is the config file's, and needs JAX, Flax, Optax and PyTorch alone."""

import subprocess
import sys
from pathlib import Path

from benchmarks.cuhk03_config import cuhk03_config
from configs.cuhk03 import get_config
from magnifier_jax.config import Config


def test_config_is_that_of_the_file_with_every_loss_on():
  expected = get_config()
  expected.dtype = "bfloat16"
  expected.model.backbone = "resnet18"
  expected.data.image_size_hw = (64, 32)
  expected.loss.diversity_start_epoch = 1
  assert cuhk03_config("resnet18", (64, 32), "bfloat16") == Config.from_config_dict(expected)


def test_our_side_runs_without_tensorflow_clu_and_ml_collections(repository: Path):
  program = """
import sys
for name in ("tensorflow", "tensorflow_datasets", "clu", "ml_collections"):
  sys.modules[name] = None  # an import of it raises
import benchmarks.train_step, benchmarks.embedding, benchmarks.jax_side
from benchmarks.side import Work, draw_batch
draw_batch(Work("train_step", "cpu", 8, (32, 32), "resnet18", "float32"))
"""
  subprocess.run([sys.executable, "-c", program], cwd=repository, check=True)
