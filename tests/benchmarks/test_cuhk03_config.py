"""The benchmarks' config is the config file's."""

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
