"""Checking a data set: what is spoilt is found and named, and nothing else is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.data import dataset, inspection
from magnifier_jax.data.inspection import Fault, Inspection
from magnifier_jax.files.whole_file import WriteError
from magnifier_jax.tools import check_data
from tests.data.noise_tree import write_images, write_tree
from tests.full_disk import full_disk

from .planted_faults import plant

_NOT_PLANTED = {Fault.SPLIT, Fault.FEW_PEOPLE, Fault.NOTHING_MATCHES}  # have tests of their own


def _arguments(root: Path, repository: Path, *fields: str) -> list[str]:
  return [
    f"--config={repository / 'configs' / 'cuhk03.py'}:small",
    f"--page={root / 'page.html'}",
    f"--config.data.manual_dir={root}",
    "--config.data.identities_per_batch=4",
    *fields,
  ]


def _inspect(root: Path, **fields) -> Inspection:
  config = get_config("small")
  config.data.manual_dir = str(root)
  config.data.identities_per_batch = 4
  config.data.update(fields)
  data = Config.from_config_dict(config).data
  return inspection.inspect(dataset.find_builder(data), root, data, num_samples=4)


def _found(result: Inspection) -> set[tuple[Fault, str]]:
  found = [(fault, Path(message.split(": ")[0]).name) for fault, message in result.findings]
  assert len(set(found)) == len(found), "a fault was found twice"
  return set(found)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
  """A data set of noise in which nothing is wrong."""
  write_tree(tmp_path, train_images=(5,) * 17, test_people=7)
  return tmp_path


def test_a_sound_data_set_has_no_findings(sound):
  result = _inspect(sound)
  assert result.findings == ()
  assert result.can_train
  train, query, gallery = result.splits
  assert [(s.images, s.people, s.cameras) for s in result.splits] == [
    (85, 17, 2), (7, 7, 1), (14, 7, 2)
  ]  # fmt: skip
  assert train.part_labels == 85
  assert train.part_pixels.sum() == 85 * 48 * 20
  assert train.published == (7_368, 767, 2)
  assert gallery.sizes_hw.tolist() == [[48, 20]] * 14
  assert len(query.samples) == 4


def test_every_planted_fault_is_found_and_named(sound):
  planted = plant(sound)
  assert len(planted) >= 20
  assert {fault for fault, _ in planted} == set(Fault) - _NOT_PLANTED
  assert _found(_inspect(sound)) == planted


def test_faults_in_real_images_are_found(real_data, tmp_path):
  assert _inspect(real_data).findings == ()
  people = sorted({file.name[:4] for file in (real_data / "cuhk03-np").rglob("*.jpg")})
  for person in people[:80]:  # enough for every fault, and quick to copy
    for file in real_data.rglob(f"{person}_*"):
      copy = tmp_path / file.relative_to(real_data)
      copy.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(file, copy)
      copy.chmod(0o644)
  assert _found(_inspect(tmp_path)) == set()
  planted = plant(tmp_path)
  assert _found(_inspect(tmp_path)) == planted


def test_too_few_people_are_found(sound):
  result = _inspect(sound, identities_per_batch=18)
  assert [finding.fault for finding in result.findings] == [Fault.FEW_PEOPLE]
  assert not result.can_train


def test_a_missing_split_is_found_and_the_others_are_read(sound):
  shutil.rmtree(sound / "cuhk03-np" / "labeled" / "query")
  result = _inspect(sound)
  assert [finding.fault for finding in result.findings] == [Fault.SPLIT]
  assert [split.name for split in result.splits] == ["train", "gallery"]


@pytest.mark.parametrize("policy", ["background", "bands"])
def test_part_labels_that_the_config_replaces_are_no_fault(sound, policy):
  shutil.rmtree(sound / "cuhk03-np_ps_label")
  result = _inspect(sound, missing_part_labels=policy)
  assert result.findings == ()
  assert [split.part_labels for split in result.splits] == [0, 0, 0]
  assert len(_inspect(sound).findings) == 85


def test_junk_and_distractors_are_counted_apart(tmp_path):
  images = [f"bounding_box_train/{p:04d}_c{c}s1_0_0.jpg" for p in range(2, 6) for c in range(1, 5)]
  images += ["query/0001_c1s1_0_0.jpg", "bounding_box_test/0001_c2s1_0_0.jpg"]
  images += [
    f"bounding_box_test/{name}_c1s1_0_{i}.jpg" for i in range(3) for name in ("-1", "0000")
  ]
  write_images(
    tmp_path / "Market-1501-v15.09.15", images, tmp_path / "Market-1501-v15.09.15_ps_label"
  )
  result = _inspect(tmp_path, dataset="market1501")
  assert result.findings == ()
  gallery = result.splits[2]
  counts = gallery.images, gallery.junk, gallery.distractors, gallery.people
  assert counts == (4, 3, 3, 1)


def test_the_exit_code_says_whether_one_can_train(sound, repository, capsys):
  assert check_data.main(_arguments(sound, repository)) == 0
  assert "Nothing is wrong. One can train." in capsys.readouterr().out
  note = max((sound / "cuhk03-np" / "labeled" / "bounding_box_train").iterdir())
  note.unlink()
  assert check_data.main(_arguments(sound, repository, "--config.data.images_per_identity=5")) == 0
  assert "note: person with few images: 1" in capsys.readouterr().out
  shutil.rmtree(sound / "cuhk03-np_ps_label" / "labeled" / "bounding_box_train")
  assert check_data.main(_arguments(sound, repository)) == 1
  output = capsys.readouterr().out
  assert "✗ missing part labels: 84" in output
  assert "and 64 more" in output
  assert "One cannot train yet: 84 faults would stop it." in output


def test_the_page_holds_samples_and_every_finding(sound, repository):
  planted = plant(sound)
  check_data.main(_arguments(sound, repository))
  page = (sound / "page.html").read_text()
  assert all(name in page for _, name in planted)
  assert page.count('alt="Part labels of') >= 30
  assert "<script" not in page
  assert "http://" not in page
  assert "https://" not in page


def test_the_page_takes_the_place_of_no_other_file(sound, repository):
  page = sound / "page.html"
  page.write_text("<title>A diary</title>")
  with pytest.raises(ValueError, match=r"page.html: is there already; --overwrite replaces it"):
    check_data.main(_arguments(sound, repository))
  assert page.read_text() == "<title>A diary</title>"
  assert check_data.main([*_arguments(sound, repository), "--overwrite"]) == 0
  assert check_data.main(_arguments(sound, repository)) == 0  # its own


def test_the_command_prints_one_line_for_a_wrong_config(tmp_path, repository):
  command = [sys.executable, "-m", "magnifier_jax.tools.check_data"]
  arguments = _arguments(tmp_path, repository, "--config.data.dataset=nothing")
  done = subprocess.run(
    [*command, *arguments],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(repository)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr.startswith("error: config.data.dataset: no data set is called 'nothing'")
  assert done.stderr.count("\n") == 1


def test_a_full_disk_leaves_the_last_page_and_the_findings(sound, repository, capsys):
  (sound / "page.html").write_text("the last one")
  with full_disk(), pytest.raises(WriteError, match=r"page\.html: .*; free some space there"):
    check_data.main(_arguments(sound, repository, "--overwrite"))
  assert "Nothing is wrong. One can train." in capsys.readouterr().out
  assert (sound / "page.html").read_text() == "the last one"
  assert not list(sound.glob(".*"))


def test_a_page_that_cannot_be_written_is_named_before_anything_is_read(
  sound, repository, monkeypatch
):
  monkeypatch.setattr(inspection, "inspect", lambda *_: pytest.fail("read everything first"))
  (sound / "taken").mkdir()
  with pytest.raises(WriteError, match=r"taken: cannot be written: Is a directory"):
    check_data.main(_arguments(sound, repository, f"--page={sound / 'taken'}"))


def test_a_page_at_home(sound, repository, monkeypatch):
  monkeypatch.setenv("HOME", str(sound))
  assert check_data.main(_arguments(sound, repository, "--page=~/mine.html")) == 0
  assert (sound / "mine.html").exists()
