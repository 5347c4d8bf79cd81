"""A whole run whose prepared copy is damaged ends, on every process, with one line and code 2."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill_and_resume import SMALL_NETWORK, write_images

# The command, but for what reading a file proves: so the copy has what a failing disk would leave.
_PREPARED_UNPROVEN = """
from magnifier_jax import main
from magnifier_jax.data import image_files

image_files._decode_as_training_does = lambda *arguments, **options: None
main.cli()
"""
_DAMAGED = "train/0003_c1_1.png"
_ONE_BRANCH = (
  "--config.model.adversarial_branch=False",
  "--config.model.fusion_branch=False",
  "--config.model.part_segmentation=False",
)


def _free_port() -> int:
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


def _damage(file: Path) -> None:
  content = bytearray(file.read_bytes())
  end_of_pixels = content.index(b"IEND") - 4
  content[end_of_pixels - 1] ^= 1  # of the checksum, which Pillow does not look at
  file.write_bytes(content)


def _start(arguments: list[str], repository: Path, **settings: str) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "-c", _PREPARED_UNPROVEN, *arguments],
    cwd=repository,
    env={
      **os.environ,
      "PYTHONPATH": str(repository),
      "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
      **settings,
    },
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.slow  # what ends one process is tested in tests/data/test_batch_iterator.py
@pytest.mark.parametrize("num_processes", [1, 2])
def test_every_process_ends_and_names_the_file(
  repository: Path, tmp_path: Path, num_processes: int
):
  write_images(tmp_path / "my_images")
  _damage(tmp_path / "my_images" / _DAMAGED)
  arguments = [
    "--config=configs/custom.py:small",
    f"--config.data.manual_dir={tmp_path}",
    f"--config.data.data_dir={tmp_path / 'prepared'}",
    f"--workdir={tmp_path / 'run'}",
    *SMALL_NETWORK,
    *_ONE_BRANCH,
  ]
  address = f"127.0.0.1:{_free_port()}"
  processes = [
    _start(
      arguments,
      repository,
      **{} if num_processes == 1 else {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(num_processes),
        "JAX_PROCESS_ID": str(number),
      },
    )
    for number in range(num_processes)
  ]  # fmt: skip
  try:
    said = [process.communicate(timeout=240)[1] for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [2] * num_processes, said
  # Both may come to their rows of that image, or one only hears of it.
  for text in said:
    assert f"error: {_DAMAGED} (train): its image cannot be read" in text.splitlines()[-1]
