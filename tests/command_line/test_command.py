"""The command `magnifier-jax`, in the checkout and out of a wheel."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from magnifier_jax import main
from magnifier_jax.command_line import command
from magnifier_jax.tools import convert

QUICK = (
  "--config=configs/synthetic.py",
  "--config.init.backbone=none",
  "--config.data.identities_per_batch=2",
  "--config.data.images_per_identity=2",
  "--config.training.num_epochs=1",
  "--config.training.steps_per_epoch=1",
  "--config.evaluation.initial=False",
  "--config.model.adversarial_branch=False",
  "--config.model.fusion_branch=False",
  "--config.model.part_segmentation=False",
)


@pytest.mark.parametrize(
  ("words", "module", "arguments"),
  [
    (["train", "--config=a.py"], main, ["--mode=train", "--config=a.py"]),
    (["evaluate", "--config=a.py"], main, ["--mode=evaluate", "--config=a.py"]),
    (["convert", "--from=a", "--to=b"], convert, ["--from=a", "--to=b"]),
  ],
)
def test_a_word_runs_its_program(
  monkeypatch: pytest.MonkeyPatch, words: list[str], module: object, arguments: list[str]
):
  seen = []
  monkeypatch.setattr(sys, "argv", ["magnifier-jax"])
  monkeypatch.setattr(module, "cli", lambda: seen.append(sys.argv[1:]))
  assert command.main(words) == 0
  assert seen == [arguments]


def test_every_program_has_a_word(repository: Path):
  tools = {path.stem for path in (repository / "magnifier_jax" / "tools").glob("*.py")}
  assert command.PROGRAMS.keys() == {"train", "evaluate", *tools} - {"__init__", "program"}
  for program in command.PROGRAMS.values():
    assert callable(importlib.import_module(program.module).cli)


@pytest.mark.parametrize(
  ("words", "code", "printed"),
  [
    ([], 2, "magnifier-jax COMMAND --config"),
    (["--help"], 0, "  check_data    finds what is wrong"),
    (["trian"], 2, "error: trian: no such command; choose from train, evaluate, check_data"),
  ],
)
def test_usage(capsys: pytest.CaptureFixture, words: list[str], code: int, printed: str):
  assert command.main(words) == code
  assert printed in "".join(capsys.readouterr())


def test_the_package_names_the_command(repository: Path):
  project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
  module, _, function = project["scripts"]["magnifier-jax"].partition(":")
  assert getattr(importlib.import_module(module), function) is command.cli


def copy_of_the_package(repository: Path, folder: Path) -> Path:
  """Lays the package out as a wheel does; returns the folder to import from."""
  shutil.copytree(
    repository / "magnifier_jax", folder / "magnifier_jax", ignore=shutil.ignore_patterns("__py*")
  )
  shutil.copytree(repository / "configs", folder / "magnifier_jax" / "configs")
  return folder


def run(site: Path, folder: Path, words: Sequence[str]) -> subprocess.CompletedProcess:
  """Runs the command with the package of `site`, in another folder."""
  program = (
    "import sys; from magnifier_jax.command_line.command import cli; sys.argv[0] = 'x'; cli()"
  )
  return subprocess.run(
    [sys.executable, "-c", program, *words],
    cwd=folder,
    env={**os.environ, "PYTHONPATH": str(site)},
    capture_output=True,
    text=True,
    check=False,
  )


def test_outside_the_checkout_the_configs_are_found(repository: Path, tmp_path: Path):
  site = copy_of_the_package(repository, tmp_path / "site")
  (tmp_path / "site" / "configs").mkdir()  # another package's
  (tmp_path / "elsewhere").mkdir()
  done = run(site, tmp_path / "elsewhere", ["check_data", "--config=configs/synthetic.py"])
  assert "synthetic_reid/small is drawn, there are no files to check" in done.stderr
  done = run(site, tmp_path / "elsewhere", ["check_data", "--config=configs/nope.py"])
  assert "there is no file configs/nope.py; ours are configs/cuhk03.py, configs/cu" in done.stderr
  assert done.returncode == 2


@pytest.fixture(scope="module")
def installed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder into which a wheel of the checkout is installed."""
  folder = tmp_path_factory.mktemp("wheel")
  names = ("magnifier_jax", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")
  (folder / "source").mkdir()
  for name in names:  # building leaves folders behind
    source, target = repository / name, folder / "source" / name
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
  pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
  build = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}"]
  subprocess.run([*pip, *build, str(folder / "source")], check=True)
  [wheel] = folder.glob("*.whl")
  install = ["install", "--no-deps", "--target", str(folder / "site")]
  subprocess.run([*pip, *install, str(wheel)], check=True)
  return folder


@pytest.mark.slow
def test_the_wheel_holds_all_that_the_package_reads(installed: Path, repository: Path):
  [wheel] = installed.glob("*.whl")
  with zipfile.ZipFile(wheel) as archive:
    names = set(archive.namelist())
  for folder, prefix in ((repository / "magnifier_jax", ""), (repository / "configs", "")):
    for path in folder.rglob("*"):
      if path.is_file() and "__pycache__" not in path.parts:
        inside = path.relative_to(repository).as_posix()
        inside = inside if inside.startswith("magnifier_jax/") else f"magnifier_jax/{inside}"
        assert prefix + inside in names
  assert not [name for name in names if name.startswith(("configs/", "tests/", "benchmarks/"))]


@pytest.mark.slow
def test_an_installed_wheel_trains_and_evaluates_anywhere(installed: Path, tmp_path: Path):
  environment = {**os.environ, "PYTHONPATH": str(installed / "site"), "XLA_FLAGS": ""}

  def magnifier_jax(*words: str) -> str:
    done = subprocess.run(
      [str(installed / "site" / "bin" / "magnifier-jax"), *words],
      cwd=tmp_path,
      env=environment,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  data = f"--config.data.data_dir={tmp_path / 'data'}"
  magnifier_jax("train", *QUICK, data)
  workdir = tmp_path / "runs" / "synthetic"
  before = json.loads((workdir / "metrics.json").read_text())
  assert "<html" in (workdir / "report.html").read_text()
  (workdir / "metrics.json").unlink()
  magnifier_jax("evaluate", *QUICK, data)
  assert json.loads((workdir / "metrics.json").read_text()) == before
  assert "synthetic_reid/small" in magnifier_jax("compare", "runs/synthetic")
  magnifier_jax("convert", "--from=runs/synthetic", "--to=out.safetensors")
  assert (tmp_path / "out.safetensors").exists()
