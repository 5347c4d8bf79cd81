"""The rooms of the package: imports point one way, and only the input needs TensorFlow."""

import ast
import graphlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import QUICK_FUSIONS
from tests.test_stored_run import STORED

# Room → the rooms that it may import. A room is a folder of `magnifier_jax`, or a file at its top.
# Models, losses, data and evaluation do not know each other.
MAY_IMPORT = {
  "errors": "",
  "command_line": "",
  "files": "errors",
  "body_parts": "",
  "train_state": "",
  "losses": "",
  "config": "body_parts errors",
  "config_argument": "config files",
  "optimizer": "config train_state",
  "devices": "errors files",
  "models": "body_parts config train_state",
  "data": "body_parts config errors files train_state",
  "evaluation": "devices errors files",
  "workdir": "config errors files train_state",
  "interop": "body_parts devices errors files models train_state",
  "trained_network": "config devices interop models train_state workdir",
  "train_step": "config devices losses models optimizer train_state",
  "weights": (
    "config devices errors files interop optimizer train_state train_step trained_network workdir"
  ),
  "embed_dataset": "config data devices evaluation models train_state workdir",
  "export": (
    "body_parts config data devices errors evaluation files models train_state trained_network "
    "weights workdir"
  ),
  "query_occlusion": "body_parts config data embed_dataset evaluation train_state workdir",
  "compilers": "config devices embed_dataset errors models train_state train_step",
  "report": "body_parts config data errors embed_dataset evaluation files workdir",
  "retrieval": (
    "config data devices embed_dataset errors evaluation export files models report "
    "trained_network train_state weights workdir"
  ),
  "part_labelling": "body_parts data devices errors files train_state trained_network",
  "evaluate": (
    "config data devices errors embed_dataset evaluation files query_occlusion report train_state "
    "trained_network workdir"
  ),
  "train": (
    "config data devices errors embed_dataset evaluate evaluation files query_occlusion report "
    "train_state train_step weights workdir"
  ),
  "comparison": "config config_argument errors evaluation files report workdir",
  "tools": (
    "body_parts command_line comparison compilers config config_argument data devices errors "
    "export files interop part_labelling report retrieval trained_network weights workdir"
  ),
  "main": "command_line config config_argument devices errors evaluate files train",
}
# Folders within a room that know nothing of it, nor of others than these.
SEALED = {"models/cpu": "", "data/synthetic": "body_parts"}
MAX_TOP_FILES = 13

# What brings TensorFlow in, and who may: the input, and the tools that prepare data.
BRINGS_TENSORFLOW = (
  "tensorflow",
  "clu.metric_writers",
  "clu.periodic_actions",
  "magnifier_jax.data.tensorflow_on_cpu",
)
MAY_BRING_TENSORFLOW = {
  "data": "the input",
  "part_labelling/pose_landmarks.py": "makes part labels; its network is a TFLite file",
}
# TensorBoard's files; whoever only prints or reads a log does not open one.
BRINGS_TENSORFLOW_WHEN_CALLED = ("workdir/metrics_log.py",)


def _imports(tree: ast.AST) -> Iterator[str]:
  """Yields what a file imports, anywhere in it, also for type checking alone."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "relative imports hide the room"
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(package: Path) -> list[Path]:
  return [path for path in sorted(package.rglob("*.py")) if path != package / "__init__.py"]


def _module(package: Path, path: Path) -> str:
  parts = path.relative_to(package.parent).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
  return module.split(".")[1]


@pytest.fixture(scope="module")
def package(repository: Path) -> Path:
  """The folder of `magnifier_jax`."""
  return repository / "magnifier_jax"


@pytest.fixture(scope="module")
def imports(package: Path) -> dict[str, set[str]]:
  """Module of the package → modules of the package that it imports."""
  modules = {_module(package, path): path for path in _files(package)}
  return {
    module: {name for name in _imports(ast.parse(path.read_text())) if name in modules} - {module}
    for module, path in modules.items()
  }


def test_every_room_has_its_place(package: Path):
  assert {_room(_module(package, path)) for path in _files(package)} == set(MAY_IMPORT)
  assert len(list(package.glob("*.py"))) <= MAX_TOP_FILES


def test_rooms_import_those_below_them_only(imports: dict[str, set[str]]):
  wrong = {
    f"{module} imports {name}"
    for module, names in imports.items()
    for name in names
    if _room(name) not in (_room(module), *MAY_IMPORT[_room(module)].split())
  }
  assert not wrong


@pytest.mark.parametrize("folder", SEALED)
def test_sealed_folders_know_nothing_of_their_room(imports: dict[str, set[str]], folder: str):
  own = f"magnifier_jax.{folder.replace('/', '.')}"
  known = {own, *(f"magnifier_jax.{room}" for room in SEALED[folder].split())}
  inside = {module: names for module, names in imports.items() if module.startswith(own)}
  assert inside
  for module, names in inside.items():
    assert all(name in known or name.startswith(f"{own}.") for name in names), module


def test_there_is_no_circle(imports: dict[str, set[str]]):
  list(graphlib.TopologicalSorter(imports).static_order())  # raises at a circle of modules
  rooms = {room: below.split() for room, below in MAY_IMPORT.items()}
  list(graphlib.TopologicalSorter(rooms).static_order())


def _all_below(room: str) -> set[str]:
  found = {room}
  for below in MAY_IMPORT[room].split():
    found |= _all_below(below)
  return found


_IMPORT_EACH_ROOM = """
import importlib, json, os, sys
import flax.nnx, jax, optax, orbax.checkpoint, tensorflow  # once, for all of the processes below
loaded = {}
for room, modules in json.loads(sys.argv[1]).items():
  reader, writer = os.pipe()
  if os.fork() == 0:
    for module in modules:
      importlib.import_module(module)
    names = [name for name in sys.modules if name.startswith("magnifier_jax.")]
    os.write(writer, json.dumps(names).encode())
    os._exit(0)
  os.close(writer)
  with os.fdopen(reader) as answer:
    loaded[room] = json.load(answer)
print(json.dumps(loaded))
"""


def test_importing_a_room_imports_none_above_it(repository: Path, package: Path):
  modules: dict[str, list[str]] = {room: [] for room in MAY_IMPORT}
  for path in _files(package):
    module = _module(package, path)
    modules[_room(module)].append(module)
  command = [sys.executable, "-W", "ignore", "-c", _IMPORT_EACH_ROOM, json.dumps(modules)]
  done = subprocess.run(command, cwd=repository, check=True, stdout=subprocess.PIPE, text=True)
  for room, names in json.loads(done.stdout.splitlines()[-1]).items():
    assert set(modules[room]) <= set(names)
    assert {_room(name) for name in names} <= _all_below(room), room


def test_config_files_import_nothing_of_the_project(repository: Path):
  allowed = {"collections", "ml_collections", "pathlib", "runpy"}
  for path in (repository / "configs").glob("*.py"):
    names = {name.split(".")[0] for name in _imports(ast.parse(path.read_text()))}
    assert names <= allowed, path.name


def test_only_the_input_and_tools_of_data_bring_tensorflow(package: Path):
  for path in _files(package):
    name = path.relative_to(package).as_posix()
    if any(name == allowed or name.startswith(f"{allowed}/") for allowed in MAY_BRING_TENSORFLOW):
      continue
    tree = ast.parse(path.read_text())
    if name in BRINGS_TENSORFLOW_WHEN_CALLED:
      tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = [imported for imported in _imports(tree) if imported.startswith(BRINGS_TENSORFLOW)]
    assert not found, f"{name} imports {found}"


_RUN_WITHOUT_TENSORFLOW = """
import sys
for name in ("tensorflow", "tensorflow_datasets", "clu", "tensorboard"):
  sys.modules[name] = None
from pathlib import Path
import jax
import numpy as np
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.evaluation.embedding import EmbeddedBatch, embed
from magnifier_jax.evaluation.ranking import Identities, evaluate_ranking
from magnifier_jax.evaluation.reranking import RerankingOptions, evaluate_reranked
from magnifier_jax.report import page
from magnifier_jax.train_state import Batch
from magnifier_jax.train_step import create_trainer
from magnifier_jax.trained_network import open_trained_network
from magnifier_jax.weights import initialization
from tests.stored_architecture import stored_architecture

random = np.random.default_rng(0)
with stored_architecture():
  trained = open_trained_network(Path(sys.argv[1]))
  height, width = trained.config.data.image_size_hw
  batch = Batch(
    image=random.integers(0, 256, (8, height, width, 3), np.uint8),
    part_labels=random.integers(0, 8, (8, height // 8, width // 8), np.uint8),
    keep_mask=np.ones((8, height // 16, width // 16), np.uint8),
    person_id=np.repeat(np.arange(4), 2).astype(np.int32),
  )
  trainer = create_trainer(trained.config, 4, 2, mesh_lib.data_mesh())
  _, metrics = trainer.step(trainer.init(0), batch)
  assert np.isfinite(metrics.losses.total)

  @jax.jit
  def embed_images(images):
    output, _ = trained.network.apply(trained.params, trained.batch_stats, images, train=False)
    return output.embeddings()

rows, everyone = np.arange(8), np.ones(8)
vectors = embed(
  lambda images: EmbeddedBatch(embed_images(images), rows, everyone), [batch.image], 8
).whole()
query, gallery = (Identities(batch.person_id, np.full(8, camera)) for camera in (1, 2))
assert evaluate_ranking(vectors, vectors, query, gallery).num_queries == 8
options = RerankingOptions(3, 2, 0.3)
assert evaluate_reranked(vectors, vectors, query, gallery, options).num_queries == 8
"""


def test_network_step_and_evaluation_run_without_tensorflow(repository: Path, tmp_path: Path):
  with tarfile.open(STORED) as archive:
    archive.extractall(tmp_path, filter="data")
  command = [sys.executable, "-c", _RUN_WITHOUT_TENSORFLOW, str(tmp_path)]
  # On one device, and compiled quickly.
  environment = os.environ | {"XLA_FLAGS": f"--xla_backend_optimization_level=0 {QUICK_FUSIONS}"}
  subprocess.run(command, cwd=repository, env=environment, check=True)


def test_saved_embeddings_are_evaluated_without_tensorflow(repository: Path):
  program = "import sys, magnifier_jax.evaluate; sys.exit('tensorflow' in sys.modules)"
  subprocess.run([sys.executable, "-c", program], cwd=repository, check=True)


def test_evaluation_needs_neither_pictures_nor_templates(repository: Path):
  folder = repository / "magnifier_jax" / "evaluation"
  modules = [f"magnifier_jax.evaluation.{path.stem}" for path in folder.glob("[!_]*.py")]
  program = (
    f"import sys, {', '.join(modules)}\n"
    "sys.exit(bool({'matplotlib', 'jinja2'} & set(sys.modules)))"
  )
  subprocess.run([sys.executable, "-c", program], cwd=repository, check=True)
