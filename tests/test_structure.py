"""Imports point one way, and only the input needs TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LAYERS = ("models", "losses", "data", "evaluation")


def _imports(path: Path) -> set[str]:
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
  return names


def _modules(package: Path, layer: str) -> list[Path]:
  folder = package / layer
  return sorted(folder.rglob("*.py")) if folder.is_dir() else [package / f"{layer}.py"]


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_do_not_import_each_other(repository: Path, layer: str):
  package = repository / "magnifier_jax"
  others = tuple(f"magnifier_jax.{other}" for other in LAYERS if other != layer)
  above = ("magnifier_jax.train", "magnifier_jax.main", "magnifier_jax.evaluate", "configs")
  for path in _modules(package, layer):
    wrong = {name for name in _imports(path) if name.startswith(others + above)}
    assert not wrong, f"{path.relative_to(repository)} imports {wrong}"


def test_config_files_import_nothing_of_the_project(repository: Path):
  allowed = {"collections", "ml_collections", "pathlib", "runpy"}
  for path in (repository / "configs").glob("*.py"):
    assert {name.split(".")[0] for name in _imports(path)} <= allowed, path.name


def test_only_data_imports_tensorflow(repository: Path):
  package = repository / "magnifier_jax"
  for path in package.rglob("*.py"):
    names = {name for name in _imports(path) if name.split(".")[0].startswith("tensorflow")}
    assert not names or path.is_relative_to(package / "data"), f"{path}: {names}"


def test_network_step_and_evaluation_run_without_tensorflow(repository: Path):
  modules = [
    f"magnifier_jax.{name}"
    for name in (
      "train_step",
      "models.network",
      "devices.mesh",
      "optimizer",
      "workdir.checkpoints",
      "interop.initialization",
      "evaluation.embedding",
      "evaluation.ranking",
      "evaluation.reranking",
      "report.page",
    )
  ]
  program = (
    f"import sys, {', '.join(modules)}\n"
    "sys.exit(any(name.split('.')[0].startswith('tensorflow') for name in sys.modules))"
  )
  subprocess.run([sys.executable, "-c", program], cwd=repository, check=True)


def test_saved_embeddings_are_evaluated_without_tensorflow(repository: Path):
  program = "import sys, magnifier_jax.evaluate_run; sys.exit('tensorflow' in sys.modules)"
  subprocess.run([sys.executable, "-c", program], cwd=repository, check=True)
