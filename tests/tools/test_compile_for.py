"""The command line of compile_for; what it compiles is in tests/compilers."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from magnifier_jax.compilers import estimate, fitting, targets
from magnifier_jax.compilers.fitting import Fit
from magnifier_jax.compilers.program import Program
from magnifier_jax.compilers.targets import TargetError
from magnifier_jax.config import ConfigError
from magnifier_jax.config_argument import load_config
from magnifier_jax.devices.mesh import DeviceError, data_mesh
from magnifier_jax.errors import UserError
from magnifier_jax.tools import compile_for
from magnifier_jax.tools.program import OverwriteError
from tests.compilers.stored_programs import TPU_LOOP
from tests.compilers.test_estimate import lowered, refused

SMALL = "--config=configs/cuhk03.py:small"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
  """Compilers that answer with a stored program; `.asked` has the programs."""
  fake = SimpleNamespace(asked=[], answer=lowered(TPU_LOOP))

  def lower(program: Program) -> SimpleNamespace:
    fake.asked.append(program)
    return fake.answer

  monkeypatch.setattr(compile_for, "open_devices", lambda target: jax.devices()[: target.chips])
  monkeypatch.setattr(compile_for, "_compiler", lambda target: "a stored program")
  monkeypatch.setattr(Program, "lower", lower)
  return fake


def test_a_step(compiled: SimpleNamespace, tmp_path: Path):
  file = tmp_path / "step.json"
  text = compile_for.main(
    ["--target=v5e:2x2", SMALL, "--config.dtype=bfloat16", "--people=10", f"--json={file}"]
  )
  assert text.startswith(
    "The training step of configs/cuhk03.py:small, bfloat16, 10 people, for v5e:2x2 by a stored"
  )
  assert "32 on 4 chips, 8 on each" in text
  [program] = compiled.asked
  assert (program.what, program.num_people, program.mesh.size) == ("train", 10, 4)
  content = json.loads(file.read_text())
  assert content["estimated_cycles"] == 26018
  assert content["what"] == "train"
  with pytest.raises(OverwriteError, match="--overwrite replaces it"):
    compile_for.main(["--target=v5e:2x2", SMALL, f"--json={file}"])


def test_an_embedding(compiled: SimpleNamespace):
  text = compile_for.main(["--target=v5e:2x2", SMALL, "--what=embed"])
  assert text.startswith("The embedding of configs/cuhk03.py:small, float32, 767 people")
  assert "64 on 4 chips, 16 on each" in text


def test_the_largest_batch(
  compiled: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  def fits_120(lowered: object, target: object, images: int, *, quick: bool) -> SimpleNamespace:
    if images > 120:
      raise estimate.OutOfMemoryError("too many")
    memory = SimpleNamespace(total=2**30)
    return SimpleNamespace(memory=memory, compile_seconds=1.0, fits=True)

  monkeypatch.setattr(fitting, "estimate", fits_120)
  file = tmp_path / "fit.json"
  text = compile_for.main(["--target=v5e:2x2", SMALL, "--fit", f"--json={file}"])
  assert "largest batch  120 images, 30 a chip (32 fits, 64 fits, 128 no, 96 fits" in text
  assert json.loads(file.read_text())["largest_batch"] == 120


def test_a_batch_that_does_not_fit_is_an_error_or_where_the_search_begins(
  compiled: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
):
  compiled.answer = refused("RESOURCE_EXHAUSTED: Used 18.5G of 15.75G hbm")
  with pytest.raises(UserError, match=r"needs 18\.50 of 15\.75 GiB with 8 images"):
    compile_for.main(["--target=v5e:2x2", SMALL])
  monkeypatch.setattr(
    "magnifier_jax.compilers.fitting.largest_batch", lambda *_: Fit(16, {32: False, 16: True})
  )
  text = compile_for.main(["--target=v5e:2x2", SMALL, "--fit"])
  assert "needs 18.50" in text
  assert "largest batch  16 images" in text


@pytest.mark.parametrize(
  ("arguments", "error", "message"),
  [
    (["--target=v9:1", SMALL], TargetError, "--target: 'v9:1' is unknown; choose a TPU slice"),
    (["--target=v5e:1", SMALL, "--config.dtype=int8"], ConfigError, "config.dtype: must be one of"),
    (["--target=v5e:1", SMALL, "extra"], ConfigError, "unexpected argument 'extra'"),
  ],
)
def test_mistakes(arguments: list[str], error: type[Exception], message: str):
  with pytest.raises(error, match=message):
    compile_for.main(arguments)


@pytest.mark.parametrize(
  ("what", "field"),
  [("train", "config.data.identities_per_batch × images_per_identity"),
   ("embed", "config.evaluation.batch_size")],
)  # fmt: skip
def test_chips_must_divide_the_batch(what: str, field: str):
  config = load_config("configs/cuhk03.py:small", ["--config.evaluation.batch_size=32"])
  mesh = data_mesh(jax.devices()[:3])
  with pytest.raises(DeviceError, match=f"^{field}: a batch of 32 images cannot be split over 3 "):
    Program(what, config, 10, mesh).lower()


@pytest.mark.parametrize(("what", "unit"), [("train", 12), ("embed", 3)])
def test_other_batches_of_a_program(what: str, unit: int):
  program = Program(
    what, load_config("configs/cuhk03.py:small", []), 10, data_mesh(jax.devices()[:3])
  )
  assert program.unit == unit
  other = program.with_images(5 * unit)
  assert other.images == 5 * unit
  assert other.config.data.images_per_identity == 4


def test_a_missing_compiler_is_one_line(repository: Path):
  if targets._version("libtpu"):
    pytest.skip("libtpu is installed")
  done = subprocess.run(
    [sys.executable, "-m", "magnifier_jax.tools.compile_for", "--target=v5e:1", SMALL],
    cwd=repository,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stdout == ""
  assert done.stderr.startswith("error: --target: TPUs' compiler is missing; pip install ")
  assert done.stderr.count("\n") == 1
