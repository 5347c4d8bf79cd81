"""Images of one camera: nothing can be evaluated, which is said at once and in one line."""

from pathlib import Path

import jax
import numpy as np
import pytest

from magnifier_jax.config_argument import load_config
from magnifier_jax.evaluate import evaluate_run
from magnifier_jax.evaluation.ranking import EvaluationError
from magnifier_jax.interop.state_dict import to_state_dict
from magnifier_jax.interop.weights_file import WeightsFile
from magnifier_jax.models.network import create_network
from magnifier_jax.tools import check_data
from magnifier_jax.weights.workdir_weights import write_workdir
from tests.data.noise_tree import write_images
from tests.test_main import run_main

_MESSAGE = "no query has a match: of the 2 queries, whose cameras are 1, nobody is in the gallery"


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
  """A command line for a data set of the user's in which every image is of camera 1."""
  images = [f"train/{person:04d}_c1_{i}.png" for person in range(2) for i in range(4)]
  images += [f"{split}/{p}_c1_{split}.png" for p in (7, 8) for split in ("query", "gallery")]
  write_images(tmp_path / "my_images", images)
  return [
    "--config=configs/custom.py:small,baseline",
    f"--config.data.manual_dir={tmp_path}",
    f"--config.data.data_dir={tmp_path / 'prepared'}",
    "--config.data.identities_per_batch=2",
    "--config.data.missing_part_labels=bands",
  ]


def test_training_does_not_start(repository, tmp_path, arguments):
  result = run_main(repository, f"--workdir={tmp_path / 'run'}", *arguments)
  assert result.returncode == 2
  line = result.stderr.strip().splitlines()[-1]
  assert line.startswith(f"error: {_MESSAGE}")
  assert "Traceback" not in result.stderr
  assert not (tmp_path / "run").exists()


def test_saved_embeddings_are_one_line_too(repository, tmp_path, arguments):
  side = {"branch/global": np.eye(2, dtype=np.float32), "person_id": np.arange(2)}
  side["camera_id"] = np.ones(2, np.int64)
  file = tmp_path / "embeddings.npz"
  np.savez(file, **{f"{s}/{n}": v for s in ("query", "gallery") for n, v in side.items()})
  more = ["--mode=evaluate", f"--config.evaluation.embeddings={file}"]
  result = run_main(repository, f"--workdir={tmp_path / 'run'}", *arguments, *more)
  assert result.returncode == 2
  assert result.stderr.strip().splitlines()[-1].startswith("error: no query has a match")
  assert "Traceback" not in result.stderr


def test_a_trained_run_is_not_evaluated(tmp_path, arguments):
  config = load_config(arguments[0].partition("=")[2], arguments[1:])
  _, init = create_network(config, num_people=2)
  params, batch_stats = jax.tree.map(
    lambda leaf: np.ones(leaf.shape, leaf.dtype), jax.eval_shape(init, jax.random.key(0))
  )
  weights = WeightsFile(Path("ones"), "", to_state_dict(params, batch_stats))
  write_workdir(config, weights, tmp_path / "run")
  with pytest.raises(EvaluationError, match=_MESSAGE):
    evaluate_run(config, tmp_path / "run")


def test_the_check_of_the_data_says_that_it_stops_training(tmp_path, arguments, capsys):
  assert check_data.main([*arguments, f"--page={tmp_path / 'page.html'}"]) == 1
  output = capsys.readouterr().out
  assert "✗ test that cannot be evaluated: 1" in output
  assert "7_c1_query.png: no query has a match, this one and 1 more" in output
