"""Damaged checkpoints are named and skipped, whatever was done to whichever of their files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from magnifier_jax.devices.mesh import data_mesh, replicated
from magnifier_jax.workdir.checkpoint_files import find_damage
from magnifier_jax.workdir.checkpoints import CheckpointError, Checkpoints, abstract_state
from tests.workdir.test_checkpoints import RECORD, make_state, save_all


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A workdir with the checkpoints of steps 2 and 4."""
  workdir = tmp_path_factory.mktemp("saved")
  save_all(workdir, {2: 0.4, 4: 0.3}, keep=2).close()
  return workdir


@pytest.fixture
def workdir(saved: Path, tmp_path: Path) -> Path:
  """A copy to damage."""
  return Path(shutil.copytree(saved, tmp_path / "run"))


def files_below(folder: Path) -> list[Path]:
  return sorted(path for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> dict[str, bytes]:
  return {str(path.relative_to(folder)): path.read_bytes() for path in files_below(folder)}


def change_a_byte(path: Path) -> None:
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def truncate(path: Path) -> None:
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def needed_files(workdir: Path) -> list[Path]:
  """All files of the newest checkpoint but `metrics.json`, which can be made again."""
  newest = workdir / "checkpoints" / "4"
  files = [path for path in files_below(newest) if path.name != "metrics.json"]
  assert len(files) > 10
  return files


@pytest.mark.parametrize(
  ("damage", "spared"),
  [
    (Path.unlink, ()),
    (lambda path: path.write_bytes(b""), ()),
    # Its text is Orbax's own affair, and is written after the hashes.
    (truncate, ("4/commit_success.txt",)),
    (change_a_byte, ("4/commit_success.txt", "4/_CHECKPOINT_METADATA")),
  ],
  ids=["missing", "emptied", "truncated", "one bit"],
)
def test_damage_to_any_file_is_found(
  workdir: Path, damage: Callable[[Path], None], spared: tuple[str, ...]
):
  for path in needed_files(workdir):
    before = path.read_bytes()
    damage(path)
    found = find_damage(workdir / "checkpoints" / "4")
    if not str(path).endswith(spared):
      assert found is not None, path
      # A changed list still names a file: the one whose line was changed.
      assert path.name == "manifest.json" or f"{path.parent.name}/{path.name} " in f"4/{found}"
    path.write_bytes(before)
  assert find_damage(workdir / "checkpoints" / "4") is None


def test_the_one_before_a_damaged_checkpoint_is_used(workdir: Path, capsys: pytest.CaptureFixture):
  newest = workdir / "checkpoints" / "4"
  change_a_byte(max(files_below(newest / "state"), key=lambda path: path.stat().st_size))
  damaged = contents(newest)
  checkpoints = Checkpoints(workdir)
  assert checkpoints.intact_step() == 2
  assert f"checkpoint of step 4 is damaged and skipped: {newest}: state/" in capsys.readouterr().out
  checkpoints.set_aside_damaged()
  assert contents(newest.with_name("4.damaged")) == damaged
  target = abstract_state(jax.eval_shape(lambda: make_state(0)), replicated(data_mesh()))
  jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(2, target), make_state(2))
  checkpoints.save(make_state(4), RECORD)
  checkpoints.close()
  assert Checkpoints(workdir).intact_step() == 4


def test_an_emptied_folder_is_damage_too_and_nothing_set_aside_is_overwritten(workdir: Path):
  newest = workdir / "checkpoints" / "4"
  newest.with_name("4.damaged").mkdir()
  shutil.rmtree(newest)
  newest.mkdir()
  checkpoints = Checkpoints(workdir)
  assert checkpoints.intact_step() == 2
  checkpoints.set_aside_damaged()
  names = {path.name for path in (workdir / "checkpoints").iterdir()}
  assert names == {"2", "4.damaged", "4.damaged-2"}


def test_looking_skips_damage_without_touching_it(workdir: Path):
  for step in (2, 4):
    (workdir / "checkpoints" / str(step) / "manifest.json").unlink()
    before = contents(workdir)
    checkpoints = Checkpoints(workdir, read_only=True)
    if step == 2:  # the best
      assert checkpoints.intact_step(best=True) == 4
    else:
      with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        checkpoints.intact_step()
    assert contents(workdir) == before


def test_nothing_changes_when_all_are_damaged(workdir: Path):
  for step in (2, 4):
    truncate(workdir / "checkpoints" / str(step) / "state" / "_METADATA")
  before = contents(workdir)
  with pytest.raises(CheckpointError) as caught:
    Checkpoints(workdir).intact_step()
  for step in (2, 4):
    assert f"checkpoints/{step}: state/_METADATA has" in str(caught.value)
  assert contents(workdir) == before


def test_a_damaged_evaluation_is_named_and_counts_as_none(
  workdir: Path, capsys: pytest.CaptureFixture
):
  truncate(workdir / "checkpoints" / "2" / "metrics.json")
  checkpoints = Checkpoints(workdir)
  assert checkpoints.metrics(2) is None
  assert checkpoints.intact_step(best=True) == 4
  assert "metrics.json is damaged: step 2 counts as not evaluated" in capsys.readouterr().out


def test_what_a_kill_left_half_written_is_named_and_removed(
  workdir: Path, capsys: pytest.CaptureFixture
):
  half = workdir / "checkpoints" / "6.orbax-checkpoint-tmp"
  shutil.copytree(workdir / "checkpoints" / "4", half)
  shutil.rmtree(half / "state")
  checkpoints = Checkpoints(workdir)
  assert checkpoints.intact_step() == 4
  assert "saving of step 6 was cut short" in capsys.readouterr().out
  # Orbax removes it in the background, and waits for that before it saves.
  checkpoints.save(make_state(8), RECORD)
  checkpoints.close()
  assert not half.exists()


def test_checkpoints_without_an_evaluation_are_never_the_best(tmp_path: Path):
  checkpoints = save_all(tmp_path, {2: 0.4, 4: 0.3})
  for step in (5, 7, 8):
    checkpoints.save(make_state(step), RECORD)
  checkpoints.close()
  again = Checkpoints(tmp_path, keep=1)
  assert again.intact_step(best=True) == 2
  assert again.intact_step() == 8
  assert again.metrics(8) is None
  assert again.metrics(2) == {"mAP": 0.4, "rank1": 0.5}


def test_restoring_something_else_is_not_called_damage(workdir: Path):
  checkpoints = Checkpoints(workdir)
  other = make_state(0)._replace(params={"bias": np.zeros(7)})
  target = abstract_state(other, replicated(data_mesh()))
  with pytest.raises(ValueError, match="bias") as caught:
    checkpoints.restore(4, target)
  assert not isinstance(caught.value, CheckpointError)
