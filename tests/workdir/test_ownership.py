import json
from pathlib import Path

import numpy as np
import pytest

from configs.synthetic import get_config
from magnifier_jax.config import Config
from magnifier_jax.evaluate import evaluate_run
from magnifier_jax.workdir.lock import locked
from magnifier_jax.workdir.ownership import ForeignFilesError, check_no_foreign_files

NAMES = ["config.json", "metrics.json", "metrics.jsonl", "report.html"]


@pytest.mark.parametrize("name", NAMES)
def test_files_of_something_else_are_not_written_over(tmp_path, name):
  (tmp_path / name).write_text("[1, 2]")
  with pytest.raises(ForeignFilesError, match=rf"has {name}.*another --workdir"):  # noqa: SIM117
    with locked(tmp_path, print):
      pytest.fail("a run began")
  assert [file.name for file in tmp_path.iterdir()] == [name]


def test_an_own_tensorboard_folder_is_kept(tmp_path):
  (tmp_path / "tensorboard").mkdir()
  with pytest.raises(ForeignFilesError, match="tensorboard"):
    check_no_foreign_files(tmp_path)


@pytest.mark.parametrize("mark", ["run.lock", "checkpoints"])
def test_a_run_goes_on_in_its_folder(tmp_path, mark):
  (tmp_path / mark).mkdir() if mark == "checkpoints" else (tmp_path / mark).touch()
  for name in NAMES:
    (tmp_path / name).touch()
  with locked(tmp_path, print):
    pass


def test_other_files_may_lie_there(tmp_path):
  (tmp_path / "notes.txt").touch()
  with locked(tmp_path, print):
    pass


@pytest.fixture
def saved(tmp_path: Path) -> Config:
  """Evaluates embeddings of a file."""
  vectors = np.eye(3, 4, dtype=np.float32) + 0.1
  file = tmp_path / "features.npz"
  people, cameras = np.arange(3), np.zeros(3, int)
  sides = {
    f"{side}/{name}": value
    for side, camera in (("query", cameras), ("gallery", cameras + 1))
    for name, value in (("branch/features", vectors), ("person_id", people), ("camera_id", camera))
  }
  np.savez(file, **sides)
  config = get_config()
  config.evaluation.embeddings = str(file)
  return Config.from_config_dict(config)


def test_saved_embeddings_are_evaluated_again_but_over_nothing_foreign(tmp_path, saved):
  for _ in range(2):
    evaluate_run(saved, tmp_path / "mine")
  theirs = tmp_path / "theirs" / "metrics.json"
  theirs.parent.mkdir()
  theirs.write_text(json.dumps({"accuracy": 0.9}))
  with pytest.raises(ForeignFilesError, match=r"metrics\.json"):
    evaluate_run(saved, theirs.parent)
  assert json.loads(theirs.read_text()) == {"accuracy": 0.9}
