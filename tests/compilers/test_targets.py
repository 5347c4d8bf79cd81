"""Names of targets, and what is said when one cannot be compiled for."""

from importlib import metadata

import pytest

from magnifier_jax.compilers import targets
from magnifier_jax.compilers.chips import GPU_CARDS, TPU_CHIPS, target_config
from magnifier_jax.compilers.targets import TargetError, open_devices, parse_target


@pytest.mark.parametrize(
  ("name", "chips", "devices_per_chip", "memory_gib"),
  [
    ("v5e:2x4", 8, 1, 16),
    ("v5e:1", 1, 1, 16),
    ("v4:2x2x2", 8, 1, 32),
    ("tpu7x:2x2x1", 4, 2, 96),
    ("h100:8", 8, 1, 79.1),
    ("b200", 1, 1, 178.4),
  ],
)
def test_names(name: str, chips: int, devices_per_chip: int, memory_gib: float):
  target = parse_target(name)
  assert (target.chips, target.devices_per_chip) == (chips, devices_per_chip)
  assert target.memory_bytes / 2**30 == pytest.approx(memory_gib, abs=0.05)
  assert target.is_tpu == name.startswith(("v", "tpu"))


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("v9:2x2", "'v9:2x2' is unknown; choose a TPU slice by its shape .v2, v3, v4, v5e"),
    ("v5e:two", "'v5e:two' is unknown"),
    ("v5e:8", "v5e:8 is a number of chips; a TPU slice has a shape, as v5e:2x2"),
    ("h100:2x4", "h100:2x4 is a shape; GPUs have a number, as h100:8"),
    ("v5e:2x0", "v5e:2x0 has no chips"),
  ],
)
def test_names_that_are_wrong(name: str, message: str):
  with pytest.raises(TargetError, match=f"^--target: {message}"):
    parse_target(name)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
  """Versions of packages that are as if installed; others are as if missing."""
  versions: dict[str, str] = {"jax": "0.10.2"}

  def version(package: str) -> str:
    if package not in versions:
      raise metadata.PackageNotFoundError(package)
    return versions[package]

  monkeypatch.setattr(metadata, "version", version)
  monkeypatch.setattr(
    metadata, "requires", lambda _: ["numpy>=2", "libtpu==0.0.42.*; extra == 'tpu'"]
  )
  return versions


def test_missing_compilers_are_named(installed: dict[str, str]):
  with pytest.raises(TargetError, match=r"TPUs' compiler is missing; pip install 'libtpu==0.0.42"):
    open_devices(parse_target("v5e:1"))
  with pytest.raises(
    TargetError, match="GPUs' compiler is missing; pip install jax-cuda12-pjrt==0"
  ):
    open_devices(parse_target("h100"))


def test_compilers_that_do_not_fit_jax_are_named(installed: dict[str, str]):
  installed.update({"libtpu": "0.0.41", "jax-cuda12-pjrt": "0.9.0"})
  with pytest.raises(TargetError, match=r"libtpu 0\.0\.41 does not fit jax 0\.10\.2; pip install"):
    open_devices(parse_target("v5e:1"))
  with pytest.raises(TargetError, match=r"jax-cuda12-pjrt 0\.9\.0 does not fit jax 0\.10\.2; pip"):
    open_devices(parse_target("h100"))


def test_jax_says_which_libtpu_it_wants():
  wanted = targets.libtpu_of_jax()
  assert wanted is None or wanted[0].isdecimal()


def test_a_card_in_xlas_words():
  text = target_config(GPU_CARDS["h100"])
  assert text.startswith("gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 ")
  assert "shared_memory_per_block_optin: 232448 " in text
  assert 'cuda_compute_capability { major: 9 minor: 0 } } platform_name: "CUDA" ' in text
  assert text.endswith('device_description_str: "NVIDIA H100 80GB HBM3"')


def test_clocks_agree_with_the_peaks():
  # A cycle of a 128 × 128 matrix unit is 2 × 128² operations.
  units = {"v2": 2, "v3": 4, "v4": 8, "v5e": 4, "v5p": 8}
  for name, number in units.items():
    chip = TPU_CHIPS[name]
    assert chip.clock_hz * number * 2 * 128**2 == pytest.approx(chip.peak_flops, rel=0.01)
