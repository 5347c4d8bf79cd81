"""Labelling a data set: where labels go, what stays, and what goes on after an interruption."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.files.whole_file import WriteError
from magnifier_jax.interop.state_dict import to_state_dict
from magnifier_jax.interop.weights_file import WeightsFile
from magnifier_jax.models.network import create_network
from magnifier_jax.part_labelling.labeller import LabelMethod, PersonImage
from magnifier_jax.part_labelling.network_labels import weigh_by_shares
from magnifier_jax.tools import check_data, label_parts
from magnifier_jax.weights.workdir_weights import write_workdir
from tests.data.noise_tree import FOLDERS, image_file, write_tree
from tests.full_disk import full_disk

_TRAIN_IMAGES = 8


@pytest.fixture
def root(tmp_path: Path) -> Path:
  """A data set of noise, its part labels moved to `given`."""
  write_tree(tmp_path, train_images=(5, 3))
  (tmp_path / "cuhk03-np_ps_label").rename(tmp_path / "given")
  return tmp_path


def _arguments(root: Path, method: str, *more: str) -> list[str]:
  repository = Path(__file__).parents[2]
  config = f"--config={repository / 'configs' / 'cuhk03.py'}:small"
  return [method, config, f"--config.data.manual_dir={root}", *more]


def _files(root: Path, *more: str) -> list[str]:
  return _arguments(root, "files", f"--folder={root / 'given'}", *more)


def _labels(folder: Path) -> dict[str, np.ndarray]:
  files = sorted(folder.rglob("*.png"))
  return {file.relative_to(folder).as_posix(): np.asarray(Image.open(file)) for file in files}


def _assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
  assert ours.keys() == theirs.keys()
  for name, labels in ours.items():
    np.testing.assert_array_equal(labels, theirs[name], err_msg=name)


class _Counting:
  """A labeller that takes the first channel for the part, and remembers what it was given."""

  batch_size = 3

  def __init__(self, stop_after: int = 100, name: str = "counting"):
    self.method = LabelMethod(name, "none", "", {})
    self.seen: list[str] = []
    self._stop_after = stop_after

  def label(self, images: list[PersonImage]) -> list[np.ndarray]:
    if len(self.seen) + len(images) > self._stop_after:
      raise KeyboardInterrupt
    self.seen += [image.path for image in images]
    return [image.pixels[..., 0] % 8 for image in images]


def _run(monkeypatch: pytest.MonkeyPatch, labeller: _Counting, root: Path, *more: str) -> int:
  monkeypatch.setitem(label_parts._LABELLERS, "files", lambda options: labeller)
  return label_parts.main(_files(root, *more))


@pytest.mark.parametrize("layout", ["same", "npy", "flat", "authors"])
def test_labels_of_every_layout_end_where_training_looks(root: Path, layout: str):
  given = root / "given"
  expected = _labels(given)
  for name, labels in expected.items():
    if layout != "same":
      (given / name).unlink()
    if layout == "npy":
      np.save(given / name.replace(".png", ".npy"), labels.astype(np.float64))
    if layout == "flat":
      Image.fromarray(labels).save(given / Path(name).name)
    if layout == "authors":
      np.save(given / f"{name}.npy", labels)
  assert label_parts.main(_files(root, "--splits=train,query,gallery")) == 0
  _assert_same(_labels(root / "cuhk03-np_ps_label"), expected)
  assert check_data.main(
    ["--config=configs/cuhk03.py:small", f"--config.data.manual_dir={root}",
     "--config.data.identities_per_batch=2", f"--page={root / 'page.html'}"]
  ) == 0  # fmt: skip


def test_arrays_inside_the_data_set_are_converted(root: Path):
  expected = _labels(root / "given")
  for name, labels in expected.items():
    file = root / "cuhk03-np" / "segmentation" / f"{name}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, labels)
  folder = f"--folder={root / 'cuhk03-np' / 'segmentation'}"
  assert label_parts.main(_arguments(root, "files", folder, "--splits=train,query,gallery")) == 0
  _assert_same(_labels(root / "cuhk03-np_ps_label"), expected)


def test_classes_of_another_parser_are_mapped(root: Path):
  for file in (root / "given").rglob("*.png"):
    Image.fromarray(np.full((48, 20), 13, np.uint8)).save(file)  # a face
  assert label_parts.main(_files(root, "--classes=lip")) == 0
  labels = _labels(root / "cuhk03-np_ps_label")
  assert len(labels) == _TRAIN_IMAGES
  assert {part for parts in labels.values() for part in np.unique(parts)} == {1}


def test_labels_of_another_size_are_scaled_if_asked(root: Path, capsys):
  file = min((root / "given" / "labeled" / FOLDERS["train"]).glob("*.png"))
  small = np.asarray(Image.open(file))[::2, ::2]
  Image.fromarray(small).save(file)
  assert label_parts.main(_files(root)) == 1
  output = capsys.readouterr().out
  assert "7 of 8 images have part labels" in output
  assert "labels are 24 × 10 but the image is 48 × 20" in output
  assert label_parts.main(_files(root, "--scale")) == 0
  scaled = _labels(root / "cuhk03-np_ps_label")[f"labeled/{FOLDERS['train']}/{file.name}"]
  np.testing.assert_array_equal(scaled, small.repeat(2, 0).repeat(2, 1))


def test_labelling_goes_on_where_it_was_interrupted(root: Path, monkeypatch, capsys):
  with pytest.raises(KeyboardInterrupt):
    _run(monkeypatch, _Counting(stop_after=3), root)
  assert len(_labels(root / "cuhk03-np_ps_label")) == 3
  rest = _Counting()
  assert _run(monkeypatch, rest, root) == 0
  assert len(rest.seen) == _TRAIN_IMAGES - 3
  assert "5 made now, 3 before by the same method" in capsys.readouterr().out
  resumed = _labels(root / "cuhk03-np_ps_label")
  assert _run(monkeypatch, _Counting(), root, f"--to={root / 'at_once'}") == 0
  _assert_same(resumed, _labels(root / "at_once"))


def test_labels_made_otherwise_stay_unless_they_are_to_be_replaced(root: Path, monkeypatch, capsys):
  label_parts.main(_files(root, "--sample=2"))
  given = root / "cuhk03-np_ps_label" / "labeled" / FOLDERS["train"] / "0010_c2_1.png"
  given.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.zeros((48, 20), np.uint8)).save(given)
  before = _labels(root / "cuhk03-np_ps_label")
  labeller = _Counting()
  capsys.readouterr()
  assert _run(monkeypatch, labeller, root) == 0
  assert len(labeller.seen) == _TRAIN_IMAGES - 3
  output = capsys.readouterr().out
  assert "kept: 1 given" in output
  assert f"kept: 2 files, {root / 'given'}" in output
  after = _labels(root / "cuhk03-np_ps_label")
  _assert_same(before, {name: after[name] for name in before})
  again = _Counting()
  assert _run(monkeypatch, again, root, "--overwrite") == 0
  assert len(again.seen) == 3


def test_images_in_which_nothing_is_found_are_named(root: Path, capsys):
  (root / "given" / "labeled" / FOLDERS["train"] / "0010_c1_0.png").unlink()
  assert label_parts.main(_files(root)) == 1
  output = capsys.readouterr().out
  assert "train: 7 of 8 images have part labels" in output
  assert f"nothing was found in 1:\n    labeled/{FOLDERS['train']}/0010_c1_0.png" in output


def test_unreadable_images_do_not_stop_the_others(root: Path, monkeypatch, capsys):
  image_file(root).write_bytes(b"no image")
  assert _run(monkeypatch, _Counting(), root) == 1
  output = capsys.readouterr().out
  assert "train: 7 of 8 images have part labels" in output
  assert f"unreadable: 1:\n    {image_file(root)}" in output


def test_shares_of_pixels_are_of_all_labels(root: Path, monkeypatch, capsys):
  _run(monkeypatch, _Counting(), root, "--sample=3")
  capsys.readouterr()
  _run(monkeypatch, _Counting(), root)
  labels = np.concatenate([x.ravel() for x in _labels(root / "cuhk03-np_ps_label").values()])
  assert f"background {100 * (labels == 0).mean():.1f}, head" in capsys.readouterr().out


def test_check_data_says_how_labels_were_made(root: Path, monkeypatch, capsys):
  _run(monkeypatch, _Counting(), root)
  capsys.readouterr()
  check_data.main(
    ["--config=configs/cuhk03.py:small", f"--config.data.manual_dir={root}",
     "--config.data.identities_per_batch=2", f"--page={root / 'page.html'}"]
  )  # fmt: skip
  assert "train, part labels made by: counting, none (8)" in capsys.readouterr().out


@pytest.fixture
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
  """As many devices as the tests have would pad a batch to 256 images."""
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  monkeypatch.setattr(mesh_lib, "data_mesh", lambda devices=None: mesh)


def _write_run(workdir: Path, **model: bool) -> None:
  """Writes a run of a tiny network with random weights."""
  config = get_config("small")
  config.data.image_size_hw = (32, 32)
  config.model.update(adversarial_branch=False, fusion_branch=False, **model)
  config = Config.from_config_dict(config)
  _, init = create_network(config, num_people=2)
  random = np.random.default_rng(0)
  params, batch_stats = jax.eval_shape(lambda: init(jax.random.key(0)))
  params = jax.tree.map(lambda leaf: random.normal(0, 0.1, leaf.shape).astype("f"), params)
  batch_stats = jax.tree.map(lambda leaf: np.ones(leaf.shape, "f"), batch_stats)
  weights = params, batch_stats
  write_workdir(config, WeightsFile(Path("random"), "", to_state_dict(*weights)), workdir)


@pytest.mark.usefixtures("one_device")
def test_a_trained_run_labels_images(root: Path, capsys):
  _write_run(root / "run")
  arguments = _arguments(root, "network", f"--workdir={root / 'run'}", "--share_steps=0")
  label_parts.main(arguments)
  labels = _labels(root / "cuhk03-np_ps_label")
  output = capsys.readouterr().out
  assert len(labels) + output.count("0010_c") + output.count("0013_c") == _TRAIN_IMAGES
  assert len({part for parts in labels.values() for part in np.unique(parts)}) > 1
  assert all(parts.shape == (48, 20) and parts.max() < 8 for parts in labels.values())
  lines = (root / "cuhk03-np_ps_label" / "label_parts.jsonl").read_text().splitlines()
  method = json.loads(lines[0])
  assert (method["name"], len(method["sha256"])) == ("network", 64)
  assert method["model"].endswith("run, step 0")


@pytest.mark.usefixtures("one_device")
def test_a_run_without_the_head_is_refused(root: Path):
  _write_run(root / "run", part_segmentation=False)
  with pytest.raises(ValueError, match=r"--workdir: .*run has no part segmentation head"):
    label_parts.main(_arguments(root, "network", f"--workdir={root / 'run'}"))


def test_shares_of_the_parts_are_estimated():
  # Two cells of three are clearly the first part; the last slightly prefers the second.
  scores = np.array([[[2.0, 2.0, 0.0]], [[0.0, 0.0, 0.3]]])
  assert scores.argmax(axis=0).tolist() == [[0, 0, 1]]
  assert weigh_by_shares(scores, steps=0).argmax(axis=0).tolist() == [[0, 0, 1]]
  weighed = weigh_by_shares(scores, steps=1)
  assert weighed.argmax(axis=0).tolist() == [[0, 0, 0]]
  share = np.mean([1 / (1 + np.exp(-difference)) for difference in (2.0, 2.0, -0.3)])
  expected = scores + np.log([share, 1 - share])[:, None, None]
  np.testing.assert_allclose(weighed, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["files", "--folder=nowhere"], r"--folder: no such folder: nowhere"),
    (["files", "--folder=.", "--classes=lips"], r"--classes: no map is called 'lips'"),
    (["files", "--folder=.", "--splits=test"], r"--splits: no split is called 'test'"),
    (["network", "--workdir=nowhere"], r"nowhere/checkpoints: no checkpoint there"),
    (["files", "--folder=.", "--config.data.dataset=synthetic_reid/small"], "is drawn"),
    (["files", "--folder=.", "--config.data.manual_dir=nowhere"], "no such folder"),
    (["files", "--folder=.", "more"], "unexpected argument 'more'"),
  ],
)
def test_wrong_command_lines_are_named(root: Path, arguments: list[str], message: str):
  method, *more = arguments
  with pytest.raises(ValueError, match=message):
    label_parts.main(_arguments(root, method, *more))


def test_a_missing_onnxruntime_is_named(root: Path, monkeypatch):
  monkeypatch.setitem(sys.modules, "onnxruntime", None)
  with pytest.raises(ValueError, match=r"onnxruntime is not installed; pip install 'magnifier-jax"):
    label_parts.main(_arguments(root, "onnx", "--model=parser.onnx", "--classes=lip"))


@pytest.mark.parametrize("option", ["--input_size=473", "--mean=1,2", "--sample=-1"])
def test_options_that_cannot_be_read_are_named(root: Path, option: str, capsys):
  with pytest.raises(SystemExit):
    label_parts.main(_arguments(root, "onnx", "--model=x.onnx", "--classes=lip", option))
  assert "is not" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_named(root: Path):
  (root / "labels").write_text("a file")
  with pytest.raises(ValueError, match=r"labels/.* cannot be written: .*another folder with --to"):
    label_parts.main(_files(root, f"--to={root / 'labels'}"))


def test_the_command_prints_one_line_for_a_mistake(root: Path, repository: Path):
  command = [sys.executable, "-m", "magnifier_jax.tools.label_parts"]
  done = subprocess.run(
    [*command, *_arguments(root, "files", "--folder=nowhere")],
    env={**os.environ, "PYTHONPATH": str(repository)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert (done.returncode, done.stderr) == (2, "error: --folder: no such folder: nowhere\n")


def test_a_full_disk_leaves_no_half_of_a_label(root: Path, capsys):
  labels = root / "labels"
  with full_disk(), pytest.raises(WriteError, match=r"labels/.*; free some space there"):
    label_parts.main(_files(root, f"--to={labels}"))
  assert [file for file in labels.rglob("*") if file.is_file() and file.stat().st_size] == []
  assert label_parts.main(_files(root, f"--to={labels}")) == 0
  assert len(_labels(labels)) == _TRAIN_IMAGES
  assert not [file for file in labels.rglob(".*") if file.is_file()]


def test_labels_at_home(root: Path, monkeypatch):
  monkeypatch.setenv("HOME", str(root))
  assert label_parts.main(_arguments(root, "files", "--folder=~/given", "--to=~/labels")) == 0
  assert len(_labels(root / "labels")) == _TRAIN_IMAGES


def test_pixels_of_0_to_1_are_refused(root: Path):
  arguments = ["--model=x.onnx", "--classes=lip", "--mean=0.485,0.456,0.406"]
  with pytest.raises(ValueError, match=r"--mean: .*0…1, .* write \(123\.675, 116\.28, 103\.53\)"):
    label_parts.main(_arguments(root, "onnx", *arguments))
