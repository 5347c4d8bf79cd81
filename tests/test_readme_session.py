"""The README's session with a trained network, command for command, as a user types it.

Trains the demo for one epoch of its six, which is a minute and a half of one core: what is asked is
whether the numbers agree, not whether they are good.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from magnifier_jax import Gallery
from magnifier_jax.config_argument import load_config
from magnifier_jax.data import dataset as dataset_lib
from tests.report import browser

PHOTOS = 24
SHORT = ("--config.training.num_epochs=1", "--config.evaluation.every_epochs=1")


@pytest.mark.slow
def test_a_session_from_readme_alone(repository: Path, tmp_path: Path):
  pytest.importorskip("onnxruntime", reason="the exported network runs in onnxruntime")
  data = f"--config.data.data_dir={tmp_path / 'data'}"
  train = f"-m magnifier_jax.main --config={repository}/configs/synthetic.py"
  run(repository, tmp_path, f"{train} --workdir=runs/synthetic {data} {' '.join(SHORT)}")
  write_photos(repository, tmp_path)
  for command in commands(repository):
    run(repository, tmp_path, command)
  gallery = Gallery.open(tmp_path / "people")
  assert len(gallery) == PHOTOS
  check_page(tmp_path)
  model = json.loads((tmp_path / "exported" / "model.json").read_text())
  assert len(model["example"]) <= 15
  program = "\n".join([*model["example"], _EMBED_ALL])
  paths = [str(path) for path in gallery.column("path")]
  run(repository, tmp_path / "exported", "-", program, paths)
  vectors = np.load(tmp_path / "exported" / "vectors.npy")
  np.testing.assert_allclose(vectors, np.concatenate(gallery.shards), atol=1e-3)
  others = np.abs(np.roll(vectors, 1, axis=0) - np.concatenate(gallery.shards))
  assert others.max(axis=1).min() > 1e-3


_EMBED_ALL = """
import sys
np.save("vectors.npy", np.stack([embed(path) for path in json.loads(sys.argv[1])]))
assert not {"magnifier_jax", "jax", "tensorflow"} & set(sys.modules)
"""


def commands(repository: Path) -> list[str]:
  """The README's commands with a trained network, without `python`."""
  readme = (repository / "README.md").read_text()
  [section] = re.findall(r"## Use a trained network\n\n```sh\n(.*?)```", readme, re.DOTALL)
  found = re.findall(r"^python (-m magnifier_jax\.tools\.[^#\n]*)", section, re.MULTILINE)
  assert [re.search(r"tools\.(\w+)", command)[1] for command in found] == [
    "embed",
    "search",
    "export",
  ]
  return found


def run(
  repository: Path, folder: Path, command: str, program: str = "", argument: object = None
) -> None:
  """Runs Python in a folder, as a user does."""
  environment = os.environ | {"PYTHONPATH": str(repository)}
  environment.pop("XLA_FLAGS", None)  # the tests' many devices
  arguments = [] if argument is None else [json.dumps(argument)]
  subprocess.run(
    [sys.executable, *command.split(), *arguments],
    cwd=folder,
    env=environment,
    input=program,
    text=True,
    check=True,
    timeout=900,
  )


def write_photos(repository: Path, folder: Path) -> None:
  """Writes test people as files, and one of them as the query."""
  config = load_config(
    f"{repository}/configs/synthetic.py", [f"--config.data.data_dir={folder / 'data'}"]
  )
  gallery = dataset_lib.load(config.data).gallery
  (folder / "photos").mkdir()
  for row in range(PHOTOS):
    (folder / "photos" / f"{row:04}.jpg").write_bytes(gallery.encoded(row).image)
  (folder / "person.jpg").write_bytes(gallery.encoded(3).image)


def check_page(folder: Path) -> None:
  """Opens the page of the search, where there is a browser."""
  if browser.missing():
    return
  page = folder / "result.html"
  with browser.running_browser(folder / "profile") as chromium:
    chromium.resize(1366, 768, False)
    chromium.open(page)
    assert chromium.console() == []
    sizes = chromium.evaluate("return [...document.images].map(image => image.naturalWidth)")
    assert len(sizes) == 1 + 10
    assert min(sizes) > 0
    first = chromium.evaluate("return document.querySelector('.results figcaption').innerText")
    assert "0003.jpg" in first
