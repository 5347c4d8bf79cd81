"""Files to workdirs and back, and from a file to embeddings."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from magnifier_jax import evaluate
from magnifier_jax.config import Config, ConfigError
from magnifier_jax.data import pipeline
from magnifier_jax.data.dataset import EncodedImage
from magnifier_jax.data.pipeline import EvaluationBatch
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.evaluation.embeddings_file import load_embeddings
from magnifier_jax.files.whole_file import WriteError
from magnifier_jax.interop.state_dict import StateDictError
from magnifier_jax.interop.torchvision_weights import BackboneError
from magnifier_jax.interop.weights_file import WeightsFileError, read_weights, write_weights
from magnifier_jax.tools.convert import ConvertError, cli, import_file, main
from magnifier_jax.tools.program import OverwriteError
from magnifier_jax.train_step import create_trainer
from magnifier_jax.weights.initialization import initialize
from magnifier_jax.workdir.checkpoints import CheckpointError, Checkpoints, abstract_state
from tests.full_disk import full_disk
from tests.golden_numbers import assert_close, fixture, golden
from tests.interop.small_network import SmallNetwork, small_config, small_network

SMALL = "--config=configs/cuhk03.py:small"


@pytest.fixture(scope="module")
def network() -> SmallNetwork:
  return small_network(num_people=3)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory, network: SmallNetwork) -> Path:
  """A workdir that was converted from `weights.pth` beside it."""
  folder = tmp_path_factory.mktemp("imported")
  write_weights(folder / "weights.pth", network.state_dict)
  main([SMALL, f"--from={folder / 'weights.pth'}", f"--to={folder / 'workdir'}"])
  return folder / "workdir"


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
  """Compares bit for bit."""
  assert ours.keys() == theirs.keys()
  for name, array in ours.items():
    assert (array.dtype, array.tobytes()) == (theirs[name].dtype, theirs[name].tobytes()), name


@pytest.mark.parametrize(
  ("name", "which"), [("out.pth", "latest"), ("new/folder/out.safetensors", "best")]
)
def test_file_to_workdir_to_file_is_exact(
  tmp_path: Path, imported: Path, network: SmallNetwork, name: str, which: str
):
  main([f"--from={imported}", f"--to={tmp_path / name}", f"--checkpoint={which}"])
  assert_same(read_weights(tmp_path / name).state_dict, network.state_dict)


def test_hash_of_the_file_is_kept(imported: Path):
  source = imported.parent / "weights.pth"
  origin = json.loads((imported / "initial_weights.json").read_text())
  assert origin == {"path": str(source), "sha256": read_weights(source).sha256}


def test_record_of_a_converted_checkpoint(imported: Path):
  checkpoints = Checkpoints(imported, read_only=True)
  record = checkpoints.read_run(0)
  assert record.num_people == 3
  assert Config.from_config_dict(record.config) == small_config()


def test_a_run_with_an_average_goes_on_from_a_converted_workdir(tmp_path: Path, imported: Path):
  file, workdir = imported.parent / "weights.pth", tmp_path / "workdir"
  main([SMALL, "--config.optimizer.ema_decay=0.9", f"--from={file}", f"--to={workdir}"])
  checkpoints = Checkpoints(workdir, read_only=True)
  config = Config.from_config_dict(checkpoints.read_run(0).config)
  trainer = create_trainer(config, 3, 1, mesh_lib.data_mesh())
  everywhere = mesh_lib.replicated(mesh_lib.data_mesh())
  target = abstract_state(trainer.init.eval_shape(0), everywhere)
  state = checkpoints.restore(0, target)
  jax.tree.map(np.testing.assert_array_equal, state.average.params, state.params)
  jax.tree.map(np.testing.assert_array_equal, state.average.batch_stats, state.batch_stats)


def test_a_run_starts_from_a_workdir(tmp_path: Path, imported: Path, network: SmallNetwork):
  drawn, said = small_network(num_people=4, seed=1), []
  state = initialize(drawn.state(), small_config(checkpoint=str(imported)), tmp_path, said.append)
  jax.tree.map(np.testing.assert_array_equal, state.batch_stats, network.batch_stats)
  for branch in ("backbone", "part_segmentation"):
    jax.tree.map(np.testing.assert_array_equal, state.params[branch], network.params[branch])
  for branch in ("global_branch", "adversarial_branch", "fusion_branch"):
    np.testing.assert_array_equal(
      state.params[branch]["classifier"]["kernel"], drawn.params[branch]["classifier"]["kernel"]
    )
  assert "its 3 people are not these 4" in said[0]
  origin = json.loads((tmp_path / "initial_weights.json").read_text())
  assert origin == {"path": str(imported), "step": 0}


def test_converting_twice_is_refused(imported: Path):
  with pytest.raises(CheckpointError, match="holds checkpoints; choose another folder"):
    main([SMALL, f"--from={imported.parent / 'weights.pth'}", f"--to={imported}"])


def test_another_architecture_is_named(tmp_path: Path, imported: Path):
  argv = [SMALL, "--config.model.backbone=resnet34", f"--from={imported.parent / 'weights.pth'}"]
  with pytest.raises(BackboneError, match=r"of a resnet18, but .* is resnet34"):
    main([*argv, f"--to={tmp_path / 'workdir'}"])
  assert not (tmp_path / "workdir").exists()


def test_every_wrong_shape_is_listed(tmp_path: Path, imported: Path):
  argv = [SMALL, "--config.model.fusion_dim=128", f"--from={imported.parent / 'weights.pth'}"]
  with pytest.raises(StateDictError) as caught:
    main([*argv, f"--to={tmp_path / 'workdir'}"])
  assert "weights.pth does not fit the network, 9 entries" in str(caught.value)
  assert "base.part.lstm.weight_ih_l0 has shape (1024, 256), the network needs (512, 256)" in str(
    caught.value
  )
  assert not (tmp_path / "workdir").exists()


@pytest.mark.parametrize(
  ("argv", "error", "message"),
  [
    (["--from=nowhere.pth", "--to=x"], ConvertError, r"--from: no file or workdir nowhere\.pth"),
    (["--from=FILE", "--to=x"], ConvertError, r"--config: missing"),
    (["--from=FILE", "--to=x.pth", SMALL], ConvertError, r"--to: x\.pth must be a workdir"),
    (["--from=WORKDIR", "--to=x.pth", SMALL], ConvertError, r"--config=.*small: not used"),
    (["--from=WORKDIR", "--to=x.npz"], WeightsFileError, r"must end in one of \.pth"),
    (["--from=WORKDIR", "--to=THERE.pth"], OverwriteError, r"\.pth: is there already; --overwrite"),
    (["--from=EMPTY", "--to=x.pth"], CheckpointError, r"no checkpoint there"),
    (
      ["--from=FILE", "--to=x", "--config=configs/nowhere.py"],
      ConfigError,
      r"there is no file configs/nowhere",
    ),
    (["--from=FILE", "--to=x", f"{SMALL}er"], ConfigError, r"no variant 'smaller'; choose from"),
    (["--from=FILE", "--to=x", SMALL, "--config.sed=1"], ConfigError, r"did you mean seed"),
    (["--from=FILE", "--to=x", SMALL, "--config.seed=-1"], ConfigError, r"config\.seed: must be"),
    (["--from=FILE", "--to=x", SMALL, "more"], ConfigError, r"unexpected argument 'more'"),
  ],
)
def test_wrong_command_lines(
  tmp_path: Path, imported: Path, argv: list[str], error: type[Exception], message: str
):
  paths = {"FILE": imported.parent / "weights.pth", "WORKDIR": imported, "EMPTY": tmp_path}
  for word, path in paths.items():
    argv = [argument.replace(f"--from={word}", f"--from={path}") for argument in argv]
  argv = [argument.replace("THERE.pth", str(paths["FILE"])) for argument in argv]
  with pytest.raises(error, match=message):
    main(argv)


def test_command_runs_without_tensorflow(tmp_path: Path, imported: Path):
  program = (
    "import sys\nsys.modules['tensorflow'] = None\n"
    "from magnifier_jax.weights import initialization\n"
    "from magnifier_jax.tools import convert\nconvert.cli()"
  )
  argv = [sys.executable, "-c", program, f"--from={imported}", f"--to={tmp_path / 'x.pth'}"]
  run = subprocess.run(argv, capture_output=True, text=True)
  assert (run.returncode, run.stderr, run.stdout.count("\n")) == (0, "", 1)
  assert run.stdout.startswith("checkpoint of step 0 in")


def test_command_prints_an_error_on_one_line(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, imported: Path
):
  monkeypatch.setattr(sys, "argv", ["convert", f"--from={imported}", "--to=x.npz"])
  with pytest.raises(SystemExit) as caught:
    cli()
  assert caught.value.code == 2
  printed = capsys.readouterr()
  assert printed.out == ""
  assert printed.err == "error: x.npz: the name must end in one of .pth, .pt, .safetensors\n"


class _GoldenSplit(SimpleNamespace):
  """The fixture's batch in the place of a split."""

  def __len__(self) -> int:
    return 8

  def encoded(self, row: int) -> EncodedImage:
    return EncodedImage(bytes([row]), b"")


def _golden_batches(*_unused: object) -> Iterator[EvaluationBatch]:
  images, *_ = fixture.batch(height=128, width=64, seed=1)
  numbers = np.arange(8, dtype=np.int32)
  images = np.ascontiguousarray(images.transpose(0, 2, 3, 1), np.float32)
  yield EvaluationBatch(image=images, index=numbers, mask=np.ones(8, np.uint8))


def test_reference_file_gives_the_golden_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  """The authors' file → workdir → `--mode=evaluate` → the numbers of their implementation."""
  from configs.cuhk03 import get_config

  values = get_config()
  values.evaluation.update(batch_size=8, save_embeddings=True)
  # The fixture's images are normalised already.
  values.data.update(pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0))
  config = Config.from_config_dict(values)
  weights = {
    name: array if array.dtype.kind == "i" else array.astype(np.float32)
    for name, array in fixture.state_dict().items()
  }
  write_weights(tmp_path / "reference.pth", weights)
  import_file(config, tmp_path / "reference.pth", tmp_path)

  split = _GoldenSplit(
    name="golden",
    person_id=np.zeros(8, int),
    camera_id=np.arange(8),
    path=[f"{row}.png" for row in range(8)],
  )
  dataset = SimpleNamespace(name=config.data.dataset, query=split, gallery=split)
  one_device = mesh_lib.data_mesh(jax.devices()[:1])
  monkeypatch.setattr(mesh_lib, "data_mesh", lambda: one_device)
  monkeypatch.setattr(evaluate.dataset_lib, "load", lambda _: dataset)
  monkeypatch.setattr(pipeline, "evaluation_batches", _golden_batches)
  monkeypatch.setattr(evaluate, "publish", lambda *_: {})
  evaluate.evaluate_run(config, tmp_path)

  query, *_ = load_embeddings(tmp_path / "embeddings.npz")
  ours = np.concatenate(list(query.embeddings.branches.values()), axis=1)
  shutil.rmtree(tmp_path)  # a gigabyte
  assert_close(ours, golden("small")["eval_embedding"], 1e-4, "eval_embedding")


def test_a_full_disk_leaves_the_file_before(tmp_path: Path, imported: Path, capsys):
  target = tmp_path / "out.safetensors"
  target.write_text("the last one")
  with full_disk(), pytest.raises(WriteError, match=r"out\.safetensors: .*; free some space"):
    main([f"--from={imported}", f"--to={target}", "--overwrite"])
  assert target.read_text() == "the last one"
  assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_no_half_of_a_checkpoint(
  tmp_path: Path, repository: Path, imported: Path
):
  """In a process of its own: Orbax's threads outlive a save that failed."""
  program = (
    "from magnifier_jax.tools.convert import cli\n"
    "from tests.full_disk import full_disk\n"
    "with full_disk(100_000):\n"
    "  cli()"
  )
  source = imported.parent / "weights.pth"
  done = subprocess.run(
    [sys.executable, "-c", program, SMALL, f"--from={source}", f"--to={tmp_path / 'run'}"],
    cwd=repository,
    capture_output=True,
    text=True,
    check=False,
  )
  assert (done.returncode, done.stdout, done.stderr) == (
    2,
    "",
    f"error: {tmp_path / 'run'}: File too large; free some space there, or have your quota raised. "
    "Nothing was converted.\n",
  )
  assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, imported: Path):
  (tmp_path / "file").write_text("in the way")
  source = imported.parent / "weights.pth"
  for argv in (
    [SMALL, f"--from={source}", f"--to={tmp_path / 'file' / 'run'}"],
    [f"--from={imported}", f"--to={tmp_path / 'file' / 'out.pth'}"],
  ):
    with pytest.raises(WriteError, match=r"file.*: cannot be written: (Not a dir|File exists)"):
      main(argv)


def test_paths_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imported: Path):
  monkeypatch.setenv("HOME", str(imported.parent))
  main([f"--from=~/{imported.name}", "--to=~/out.safetensors"])
  assert (imported.parent / "out.safetensors").exists()
