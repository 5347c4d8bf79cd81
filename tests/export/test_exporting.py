"""A workdir becomes a folder that describes itself, whole or not at all."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import magnifier_jax
from magnifier_jax.data.synthetic.pedestrians import draw_pedestrian
from magnifier_jax.export import exporting, packages
from magnifier_jax.export.description import describe
from magnifier_jax.export.gate import NUM_IMAGES, NearTie, Parity, relative_norms
from magnifier_jax.export.opened import open_exported
from magnifier_jax.export.packages import ExportError
from magnifier_jax.export.reference import compute_reference, signature_of
from magnifier_jax.export.results import MetricsError
from magnifier_jax.files.whole_file import WriteError
from magnifier_jax.tools.export import main
from magnifier_jax.weights.digest import weights_sha256
from magnifier_jax.workdir.checkpoints import CheckpointError

from .conftest import Case
from .random_network import STEP, write_workdir

ORIGIN = {"path": "/mine/a.pth", "sha256": "ab" * 32}
METRICS: dict[str, Any] = {
  "config": "cuhk03_small",
  "dataset": "cuhk03_np/labeled",
  "step": STEP,
  "flip": False,
  "validation_people": 0,
  "checkpoint_chosen_on": "",
  **{
    row: {"rank1": 0.8, "rank5": 0.9, "mAP": 0.7, "mINP": 0.4}
    for row in ("all", "all, re-ranked", "global", "adversarial", "fusion")
  },
  "thresholds": {
    "calibrated_on": "10 test people",
    "flip": False,
    **{
      name: [{"false_accept_rate": 1e-3, "distance": distance, "true_accept_rate": 0.5}]
      for name, distance in (("whole", 0.5), ("global", 0.6), ("adversarial", 0.7), ("fusion", 0.8))
    },
  },
}


@pytest.fixture(scope="module")
def workdir(lstm: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A workdir that was evaluated, of the network of `lstm`."""
  folder = write_workdir(tmp_path_factory.mktemp("run"), lstm.trained)
  (folder / "metrics.json").write_text(json.dumps(METRICS))
  (folder / "initial_weights.json").write_text(
    json.dumps({"path": "/mine/a.pth", "sha256": "ab" * 32})
  )
  return folder


@pytest.fixture(scope="module")
def folder(workdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """The workdir, exported as ONNX."""
  output = tmp_path_factory.mktemp("exported") / "new" / "network"
  written = main([f"--network={workdir}", f"--output={output}"])
  assert re.search(rf"^written: {output}\n  model.onnx: .*global \d", written)
  assert sorted(os.listdir(output.parent)) == ["network"]
  return output


@pytest.fixture(scope="module")
def model(folder: Path) -> dict[str, Any]:
  """What `model.json` says."""
  return json.loads((folder / "model.json").read_text())


@pytest.mark.parametrize("name", ["", "model.onnx"])
def test_it_embeds_into_the_gallery_of_its_workdir(
  lstm: Case, workdir: Path, folder: Path, tmp_path: Path, name: str
):
  exported = magnifier_jax.load(folder / name)
  images = list(lstm.reference.images)
  embedded = exported.embed(images)
  np.testing.assert_allclose(embedded.whole, lstm.reference.embeddings, atol=1e-4)
  assert exported.thresholds.at(1e-3, "fusion").distance_threshold == 0.8
  gallery = magnifier_jax.Gallery.create(tmp_path / "people", magnifier_jax.load(workdir))
  gallery.add(embedded)
  found = gallery.search(embedded, k=1)
  assert [matches[0].row for matches in found] == list(range(len(images)))
  verdict = exported.same_person(images[0], images[0])
  assert (verdict.same, verdict.threshold) == (True, 0.5)


def test_model_json_says_what_a_user_must_know(lstm: Case, model: dict[str, Any]):
  trained = lstm.trained
  assert model["input"] | {"resize": None} == {
    "name": "images",
    "dtype": "float32",
    "layout": "NCHW",
    "shape": ["batch", 3, 64, 32],
    "colors": "RGB",
    "size_hw": [64, 32],
    "resize": None,
    "normalized": "outside: (pixels - mean) / std",
    "mean": list(trained.config.data.pixel_mean),
    "std": list(trained.config.data.pixel_std),
  }
  assert model["output"]["branches"] == [
    {"name": "global", "width": 64},
    {"name": "adversarial", "width": 16},
    {"name": "fusion", "width": 24},
  ]
  assert model["weights_sha256"] == weights_sha256(trained.params, trained.batch_stats)
  assert (model["config"], model["step"]) == (trained.record.config, STEP)
  assert model["initial_weights"] == ORIGIN
  assert model["metrics"] == {name: METRICS[name] for name in METRICS if name != "thresholds"}
  assert model["thresholds"] == METRICS["thresholds"]
  assert model["parity"]["images"] == "10 drawn pedestrians"  # its data set is not here
  for found in model["parity"]["files"].values():
    assert 0 < max(found["largest_relative_difference"].values()) < model["parity"]["limit"]


def test_the_files_are_those_of_model_json(folder: Path, model: dict[str, Any]):
  assert sorted(os.listdir(folder)) == sorted([*model["files"], "model.json", "README.md"])
  for name, facts in model["files"].items():
    content = (folder / name).read_bytes()
    assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_the_onnx_file_describes_itself(folder: Path, model: dict[str, Any]):
  loaded = onnx.load(str(folder / "model.onnx"))
  onnx.checker.check_model(loaded)
  [stored] = loaded.metadata_props
  assert stored.key == "magnifier_jax"
  assert json.loads(stored.value) == {name: model[name] for name in model if name != "files"}


@pytest.fixture(scope="module")
def pedestrians() -> list[np.ndarray]:
  """Drawn people of several sizes."""
  return [draw_pedestrian(7, person, person % 3, 0).image for person in range(NUM_IMAGES)]


@pytest.fixture(scope="module")
def expected(lstm: Case, pedestrians: list[np.ndarray]) -> np.ndarray:
  """What the network itself makes of them, [N, D]."""
  resized = [Image.fromarray(image).resize((32, 64), Image.BILINEAR) for image in pedestrians]
  return compute_reference(lstm.net, lstm.signature, np.stack(resized)).embeddings


def _lines_of_the_card(folder: Path) -> str:
  [lines] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
  return lines


def _embed_by(lines: str, files: list[Path]) -> np.ndarray:
  names: dict[str, Any] = {}
  exec(lines, names)
  return np.stack([names["embed"](file) for file in files])


def test_the_lines_of_the_card_give_our_numbers(
  folder: Path,
  model: dict[str, Any],
  pedestrians: list[np.ndarray],
  expected: np.ndarray,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
):
  turned = Image.Exif()
  turned[0x0112] = 6  # to be turned by 90° to the right
  files = [tmp_path / f"{i}.png" for i in range(NUM_IMAGES)]
  for i, (file, image) in enumerate(zip(files, pedestrians)):
    if i % 2:
      Image.fromarray(np.rot90(image)).save(file, exif=turned)
    else:
      Image.fromarray(image).save(file)
  monkeypatch.chdir(folder)
  lines = _lines_of_the_card(folder)
  assert lines.splitlines() == model["example"]
  code = [line for line in lines.splitlines() if line and not line.startswith(("import", "from"))]
  assert len(code) <= 10
  assert relative_norms(_embed_by(lines, files), expected).max() < 1e-3


def test_the_card_says_what_was_measured(folder: Path):
  card = (folder / "README.md").read_text()
  assert "| all | 80.0 | 90.0 | 70.0 | 40.0 |" in card
  assert "| 0.001 | 0.5000 | 50.0 % |" in card
  assert "calibrated on\n10 test people" in card
  assert "It began with a.pth (SHA-256 abababababababab…)" in card
  assert "| its parts, in order | global 64, adversarial 16, fusion 24 |" in card
  assert re.search(r"\| `model.onnx` \|( \d\.\de-\d\d \|){3}", card)
  assert "{" not in _without_code(card)


def _without_code(card: str) -> str:
  return re.sub(r"```.*?```", "", card, flags=re.DOTALL)


@pytest.mark.parametrize("name", ["", "model.onnx"])
def test_it_opens_as_a_folder_or_as_a_file(lstm: Case, folder: Path, name: str):
  network = open_exported(folder / name)
  assert network.image_size_hw == (64, 32)
  assert list(network.branches.items()) == [("global", 64), ("adversarial", 16), ("fusion", 24)]
  assert network.weights_sha256 == weights_sha256(lstm.trained.params, lstm.trained.batch_stats)
  assert network.thresholds == METRICS["thresholds"]
  embedded = network.embed_batch(lstm.reference.images[:3])
  assert list(embedded) == list(network.branches)
  found = np.concatenate(list(embedded.values()), axis=1)
  assert relative_norms(found, lstm.reference.embeddings[:3]).max() < 1e-5
  with pytest.raises(ValueError, match=r"uint8 \[B, 64, 32, 3\], got float32 \[3, 64, 32, 3\]"):
    network.embed_batch(lstm.reference.images[:3].astype(np.float32))


def test_a_folder_of_stablehlo_alone_opens_and_its_card_runs(
  lstm: Case, folder: Path, workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  output = tmp_path / "out"
  main(
    [
      f"--network={workdir}",
      f"--output={output}",
      "--format=stablehlo",
      "--input=uint8",
      "--branches=global",
    ]
  )
  assert sorted(os.listdir(output)) == ["README.md", "model.json", "model.stablehlo"]
  Image.fromarray(lstm.reference.images[0]).save(tmp_path / "a.png")
  monkeypatch.chdir(output)
  found = _embed_by(_lines_of_the_card(output), [tmp_path / "a.png"])
  wanted = lstm.of("global").reference.embeddings[:1]
  assert relative_norms(found, wanted).max() < 1e-5
  network = open_exported(output / "model.stablehlo")
  embedded = network.embed_batch(lstm.reference.images[:1])["global"]
  assert relative_norms(embedded, wanted).max() < 1e-5
  # What was measured of all branches together is not said of one.
  assert network.thresholds == {
    "calibrated_on": "10 test people",
    "flip": False,
    "global": METRICS["thresholds"]["global"],
    "whole": METRICS["thresholds"]["global"],
  }
  rows = [name for name, row in network.description["metrics"].items() if isinstance(row, dict)]
  assert rows == ["global"]


@pytest.mark.slow
def test_both_formats_lie_in_one_folder(lstm: Case, workdir: Path, tmp_path: Path):
  output = tmp_path / "out"
  written = main([f"--network={workdir}", f"--output={output}", "--format=stablehlo,onnx"])
  assert re.search(r"model.stablehlo: .*\n  model.onnx: .*fusion \d", written)
  expected = lstm.reference.embeddings[:3]
  for name in ("model.onnx", "model.stablehlo"):
    network = open_exported(output)
    embedded = network.embed_batch(lstm.reference.images[:3])
    assert relative_norms(np.concatenate(list(embedded.values()), axis=1), expected).max() < 1e-5
    (output / name).unlink()


def test_an_onnx_file_opens_without_jax_and_tensorflow(folder: Path, repository: Path):
  program = (
    "import sys; from pathlib import Path; import numpy as np\n"
    "from magnifier_jax.export.opened import open_exported\n"
    f"network = open_exported(Path({str(folder)!r}))\n"
    "network.embed_batch(np.zeros((2, 64, 32, 3), np.uint8))\n"
    "sys.exit(bool({'jax', 'tensorflow', 'onnx'} & set(sys.modules)))"
  )
  subprocess.run([sys.executable, "-c", program], cwd=repository, check=True)


def test_a_weight_that_changes_after_writing_is_noticed(
  workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
  write = exporting.write_bytes

  def write_wrong(file: Path, content: bytes) -> None:
    model = onnx.load_from_string(content)
    [bias] = [t for t in model.graph.initializer if t.name == "adversarial_branch/reduce/bias"]
    values = onnx.numpy_helper.to_array(bias) + np.float32(0.01)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    write(file, model.SerializeToString())

  monkeypatch.setattr(exporting, "write_bytes", write_wrong)
  assert main([f"--network={workdir}", f"--output={tmp_path / 'out'}"]) == 1
  error = capsys.readouterr().err
  assert re.match(
    r"error: model\.onnx: it differs .*: adversarial by \d\.\de-0\d, .* Nothing", error
  )
  assert os.listdir(tmp_path) == []


def test_near_ties_are_named(workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  ties = tuple(NearTie(image, 2, 1, ("head", "torso"), 1e-6) for image in (3, 4))
  parity = Parity({"global": 2e-7}, ties, left_out=(4,))
  monkeypatch.setattr(exporting, "check", lambda *arguments: parity)
  output = tmp_path / "out"
  lines = main([f"--network={workdir}", f"--output={output}", "--branches=global"]).splitlines()
  assert lines[2:] == [
    "    image 3, row 2, column 1: head and torso are equally likely",
    "    image 4, row 2, column 1: head and torso are equally likely; the image was not compared",
  ]
  stored = json.loads((output / "model.json").read_text())["parity"]["files"]["model.onnx"]
  assert stored["images_left_out"] == [4]
  assert [tie["parts"] for tie in stored["near_ties"]] == [["head", "torso"]] * 2


def test_without_an_evaluation_of_this_checkpoint_nothing_is_claimed(
  lstm: Case, workdir: Path, tmp_path: Path
):
  copy = shutil.copytree(workdir, tmp_path / "run")
  (copy / "metrics.json").write_text(json.dumps(METRICS | {"step": STEP + 1}))
  main([f"--network={copy}", f"--output={tmp_path / 'out'}", "--branches=global"])
  model = json.loads((tmp_path / "out" / "model.json").read_text())
  assert (model["metrics"], model["thresholds"]) == (None, None)
  assert "was not evaluated" in (tmp_path / "out" / "README.md").read_text()
  (copy / "metrics.json").write_text("{")
  with pytest.raises(MetricsError, match=r"metrics\.json: damaged .*evaluate again"):
    main([f"--network={copy}", f"--output={tmp_path / 'other'}", "--branches=global"])
  assert sorted(os.listdir(tmp_path)) == ["out", "run"]


def test_a_run_on_several_data_sets_says_what_it_does_on_each(workdir: Path, tmp_path: Path):
  copy = shutil.copytree(workdir, tmp_path / "run")
  (copy / "metrics.json").unlink()
  for name, step in (("market1501", STEP), ("own/a", STEP), ("msmt17", STEP + 1)):
    folder = copy / "tested_on" / name.replace("/", "_")
    folder.mkdir(parents=True)
    thresholds = METRICS["thresholds"] | {"calibrated_on": f"{name}, 10 test people"}
    results = METRICS | {"dataset": name, "step": step, "thresholds": thresholds}
    (folder / "metrics.json").write_text(json.dumps(results))
  main([f"--network={copy}", f"--output={tmp_path / 'out'}", "--branches=global"])
  model = json.loads((tmp_path / "out" / "model.json").read_text())
  assert model["metrics"] is None
  assert model["tested_on"].keys() == {"market1501", "own/a"}
  assert "global" in model["tested_on"]["market1501"]
  assert "fusion" not in model["tested_on"]["market1501"]
  card = (tmp_path / "out" / "README.md").read_text()
  assert "Measured on market1501, test people:" in card
  assert "Measured on own/a, test people:" in card
  assert "calibrated on\nown/a, 10 test people:" in card
  assert "was not evaluated" not in card
  network = magnifier_jax.load(tmp_path / "out", calibrated_on="own/a")
  assert network.thresholds.at(1e-3).distance_threshold == 0.6  # of the global branch


def test_thresholds_of_all_branches_are_not_those_of_some(lstm: Case, workdir: Path):
  two = signature_of(lstm.trained, ("global", "fusion"), "float32")
  described = describe(lstm.trained, workdir, two, "", parity={}, images="")
  assert described["thresholds"].keys() == {"calibrated_on", "flip", "global", "fusion"}
  rows = [name for name, row in described["metrics"].items() if isinstance(row, dict)]
  assert rows == ["global", "fusion"]


def test_what_is_there_is_replaced_only_if_it_was_exported(
  folder: Path, workdir: Path, tmp_path: Path
):
  output = shutil.copytree(folder, tmp_path / "out")
  arguments = [f"--network={workdir}", f"--output={output}", "--branches=global"]
  with pytest.raises(ExportError, match="is there already; --overwrite replaces"):
    main(arguments)
  main([*arguments, "--overwrite"])
  assert list(open_exported(output).branches) == ["global"]
  assert sorted(os.listdir(output)) == ["README.md", "model.json", "model.onnx"]
  (output / "notes.txt").write_text("mine")
  with pytest.raises(ExportError, match=r"holds notes\.txt, which is no part"):
    main([*arguments, "--overwrite"])
  shutil.rmtree(output)
  output.mkdir()
  (output / "README.md").write_text("mine")
  with pytest.raises(ExportError, match=r"there is no model\.json in it"):
    main([*arguments, "--overwrite"])
  assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
  ("arguments", "error", "message"),
  [
    (["--network={}/none"], ExportError, "no workdir .*none"),
    (["--network={}"], CheckpointError, "no checkpoint there"),
    (["--network={}", "--format=onnx,tflite"], ExportError, "no format is called 'tflite'"),
    (["--network={}", "--format=onnx,"], ExportError, "has an empty name"),
    (["--network={}", "--output={}/file"], ExportError, "file is no folder"),
    (["--network=WORKDIR", "--branches=body"], ExportError, "no branch 'body'; it has global, ad"),
    (["--network=WORKDIR", "--output=/proc/out"], WriteError, "/proc/out: cannot be written"),
  ],
)
def test_what_cannot_be_done_is_one_line(
  workdir: Path, tmp_path: Path, arguments: list[str], error: type[Exception], message: str
):
  (tmp_path / "file").touch()
  given = [text.format(tmp_path).replace("WORKDIR", str(workdir)) for text in arguments]
  with pytest.raises(error, match=message) as raised:
    main([f"--output={tmp_path / 'out'}", *given])
  assert "\n" not in str(raised.value)
  assert os.listdir(tmp_path) == ["file"]


def test_a_missing_package_is_one_line(
  workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setitem(sys.modules, "onnx", None)
  with pytest.raises(ExportError, match=r"onnx is not installed; pip install 'magnifier-jax\[onnx"):
    main([f"--network={workdir}", f"--output={tmp_path / 'out'}"])
  assert packages.import_onnxruntime()


def test_what_is_no_exported_network_is_named(folder: Path, tmp_path: Path):
  def refused(path: Path, message: str) -> None:
    with pytest.raises(ExportError, match=message) as raised:
      open_exported(path)
    assert "\n" not in str(raised.value)

  refused(tmp_path / "none", "no folder of an exported network")
  refused(tmp_path, r"there is no model\.json in it")
  copy = shutil.copytree(folder, tmp_path / "copy")
  with (copy / "model.onnx").open("r+b") as file:
    file.seek(1000)
    file.write(b"\0\0\0\0")
  refused(copy, "not the file that model.json beside it describes")
  (copy / "model.onnx").write_bytes(b"no protocol buffer")
  refused(copy / "model.onnx", "not an ONNX file that runs here")
  (copy / "model.json").write_text('{"format": "other"}')
  refused(copy, "not of an exported network")
  (copy / "model.json").write_text(json.dumps({"format": "magnifier_jax network", "version": 2}))
  refused(copy, "of version 2; this program reads 1")
  model = onnx.load(str(folder / "model.onnx"))
  del model.metadata_props[:]
  onnx.save(model, str(tmp_path / "theirs.onnx"))
  refused(tmp_path / "theirs.onnx", "not written by magnifier_jax.tools.export")
