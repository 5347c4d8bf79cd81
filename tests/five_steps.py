"""Five updates and an evaluation of a shallow network on two data sets of noise images, on any
number of devices.

As a program it is one of the processes that `launch/local.sh` starts.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.data.pipeline import train_batches
from magnifier_jax.data.training_set import training_set
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.devices.joining import join
from magnifier_jax.devices.processes import Launch
from magnifier_jax.embed_dataset import DatasetEmbedder, identities
from magnifier_jax.evaluation.ranking import evaluate_ranking
from magnifier_jax.train_state import TrainState
from magnifier_jax.train_step import create_trainer
from magnifier_jax.workdir.checkpoints import Checkpoints, abstract_state, run_record
from tests.data.noise_tree import write_images, write_tree

FIRST, SECOND = "cuhk03_np/labeled", "image_list/second"
NUM_PEOPLE, STEPS_PER_EPOCH, NUM_STEPS = 4, 100, 5
RESULT = "RESULT "


class Trained(NamedTuple):
  """What must not depend on the devices."""

  reported: np.ndarray  # [updates, n]: every loss, and the norm of the gradient
  state: TrainState


def write_data_sets(manual_dir: Path) -> None:
  """Writes two people to train on into each data set; the first has four to test on."""
  write_tree(manual_dir, train_images=(4, 4), test_people=4)
  images = [f"train/{person}_c{1 + i % 2}_{i}.png" for person in (10, 13) for i in range(4)]
  images += ["query/1_c1_1.png", "gallery/1_c2_1.png"]
  write_images(manual_dir / "second", images, manual_dir / "second_ps_label")


def make_config(manual_dir: Path, dtype: str) -> Config:
  """Returns the config of a batch of 8 images, 32 × 32, which 8 devices divide."""
  config = get_config("small")
  config.dtype = dtype
  config.data.update(
    dataset=f"('{FIRST}', '{SECOND}')",
    mixing="equal",
    manual_dir=str(manual_dir),
    data_dir=str(manual_dir / "prepared"),
    image_size_hw=(32, 32),
    identities_per_batch=4,
    images_per_identity=2,
  )
  config.model.update(backbone="resnet10_narrow", adversarial_dim=16, fusion_dim=16)
  # What an update does besides, in the authors' settings, is a case of this.
  config.model.global_pooling = "gem"
  config.data.augmentation.update(brightness=0.2, contrast=0.2, saturation=0.2)
  config.optimizer.update(schedule="cosine", ema_decay=0.9)
  config.training.num_epochs = 20
  # As in the authors' first epoch. In float32 the sign of a gradient near 0, which is all that Adam
  # takes from it at first, is rounding's; such a weight may differ by twice the rate.
  config.optimizer.update(learning_rate=3.5e-4, warmup_epochs=10)
  config.evaluation.batch_size = 8
  return Config.from_config_dict(config)


class Run:
  """A run on a mesh.

  Args:
    config: from `make_config`.
    mesh: of devices.
  """

  def __init__(self, config: Config, mesh: Mesh):
    self.config, self.mesh = config, mesh
    datasets = [dataset_lib.load(config.data.of(name)) for name in config.data.datasets]
    self.dataset, self.training = datasets[0], training_set(datasets)
    self.trainer = create_trainer(config, NUM_PEOPLE, STEPS_PER_EPOCH, mesh)

  def start(self) -> TrainState:
    """Returns the state before the first update."""
    return self.trainer.init(self.config.seed)

  def train(self, state: TrainState, num_steps: int = NUM_STEPS) -> Trained:
    """Goes on from a state, which is donated, to `num_steps` updates done."""
    local = train_batches(
      self.training,
      self.config,
      int(state.step),
      num_steps,
      jax.process_index(),
      jax.process_count(),
    )
    reported = []
    for batch in mesh_lib.prefetch(local, self.mesh):
      state, metrics = self.trainer.step(state, batch)
      terms = jax.tree.leaves(jax.device_get(metrics))
      reported.append(np.concatenate([np.ravel(term) for term in terms]))
    return Trained(np.array(reported), state)

  def evaluate(self, state: TrainState) -> dict[str, float]:
    """Returns the metrics of a state on the first data set."""
    embedder = DatasetEmbedder(self.config, self.dataset, self.trainer.network, self.mesh)
    embeddings = embedder.embeddings(*state.weights)
    sides = (self.dataset.query, self.dataset.gallery)
    metrics = evaluate_ranking(
      *(side.whole() for side in embeddings), *(identities(side) for side in sides)
    )
    return metrics.summary()

  def save(self, workdir: Path, state: TrainState) -> None:
    """Writes a checkpoint."""
    checkpoints = Checkpoints(workdir)
    checkpoints.save(state, run_record(self.config, NUM_PEOPLE, STEPS_PER_EPOCH))
    checkpoints.close()

  def restore(self, workdir: Path) -> TrainState:
    """Reads the newest checkpoint onto this run's devices."""
    checkpoints = Checkpoints(workdir, read_only=True)
    target = abstract_state(
      self.trainer.init.eval_shape(self.config.seed), mesh_lib.replicated(self.mesh)
    )
    return checkpoints.restore(checkpoints.latest_step(), target)


def main(manual_dir: str, workdir: str) -> None:
  """Trains in float64, evaluates and saves; prints what a test cannot find in the checkpoint."""
  join(Launch())
  jax.config.update("jax_enable_x64", True)
  run = Run(make_config(Path(manual_dir), "float64"), mesh_lib.data_mesh())
  trained = run.train(run.start())
  metrics = run.evaluate(trained.state)
  run.save(Path(workdir), trained.state)
  print(RESULT + json.dumps([trained.reported.tolist(), metrics]), flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])
