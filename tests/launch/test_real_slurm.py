"""launch/slurm.sbatch on a real SLURM cluster of two nodes, and Open MPI's mpirun."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kill_and_resume import (
  SMALL_NETWORK,
  difference,
  last_checkpoint,
  write_images,
)
from benchmarks.slurm_cluster import Job, SlurmCluster, missing_programs
from tests.conftest import QUICK_FUSIONS

pytestmark = pytest.mark.slow

NUM_STEPS = 18
SCHEDULE = (
  "--config.training.num_epochs=3",
  "--config.training.steps_per_epoch=6",
  "--config.training.log_every_steps=1",
  "--config.evaluation.every_epochs=3",
)
ARGUMENTS = (
  "--config=configs/custom.py:small",
  "--config.dtype=float64",
  *SMALL_NETWORK,
  *SCHEDULE,
  "--config.evaluation.initial=False",
  "--config.model.backbone=resnet10_narrow",
  # One branch compiles faster; what is exchanged, saved and restored is of the same kind.
  "--config.model.adversarial_branch=False",
  "--config.model.fusion_branch=False",
  "--config.model.part_segmentation=False",
)
TWO_NODES = ("--ntasks-per-node=1", "--gpus-per-node=0")  # as launch/README.md has it
ONE_NODE = ("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0")

# Puts a job on the cluster: options of sbatch, the workdir, more arguments of main.
Submit = Callable[..., Job]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
  """Two nodes for all tests of this file."""
  if missing := missing_programs():
    pytest.skip(f"SLURM is not installed: no {', '.join(missing)}; .ci/run installs it")
  with SlurmCluster(tmp_path_factory.mktemp("slurm")) as running:
    yield running


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
  """The arguments of a tiny run in float64, without its workdir."""
  folder = tmp_path_factory.mktemp("data")
  write_images(folder / "images" / "my_images")
  return [
    *ARGUMENTS,
    f"--config.data.manual_dir={folder}/images",
    f"--config.data.data_dir={folder}/data",
  ]


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
  """What the environment of a run says, beside the launcher's own variables."""
  folder = tmp_path_factory.mktemp("compilations")
  return {
    "PYTHON": sys.executable,
    "SLURM_WAIT": "5",
    "PYTHONDONTWRITEBYTECODE": "",
    "XLA_FLAGS": QUICK_FUSIONS,  # and one device
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(folder),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
  }


@pytest.fixture(scope="module")
def submit(
  cluster: SlurmCluster, arguments: list[str], variables: dict[str, str], repository: Path
) -> Submit:
  """Hands launch/slurm.sbatch to the cluster's sbatch."""

  def submit_job(options: Sequence[str], workdir: Path, *more: str) -> Job:
    command = [*options, "launch/slurm.sbatch", *arguments, *more, f"--workdir={workdir}"]
    return cluster.submit(command, workdir.with_suffix(".log"), repository, variables)

  return submit_job


def run(command: Sequence[str], variables: dict[str, str], repository: Path) -> str:
  """Returns what a command prints that must succeed."""
  result = subprocess.run(
    command,
    cwd=repository,
    env=os.environ | variables,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stdout
  return result.stdout


@pytest.fixture(scope="module")
def one_process(
  arguments: list[str],
  variables: dict[str, str],
  repository: Path,
  tmp_path_factory: pytest.TempPathFactory,
) -> Path:
  """The workdir of a run of one process, without a scheduler."""
  workdir = tmp_path_factory.mktemp("one") / "workdir"
  command = [variables["PYTHON"], "-m", "magnifier_jax.main", *arguments, f"--workdir={workdir}"]
  run(command, variables, repository)
  return workdir


@pytest.fixture(scope="module")
def two_nodes(submit: Submit, one_process: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
  """A job that has run on both nodes from start to end; its workdir is beside its log.

  `one_process` has prepared the images.
  """
  job = submit(TWO_NODES, tmp_path_factory.mktemp("two") / "workdir")
  assert job.wait() == "COMPLETED", job.lines()
  return job


def workdir_of(job: Job) -> Path:
  return job.log.with_suffix("")


def assert_equal_to_rounding(workdir: Path, reference: Path) -> None:
  """Compares what two runs have learnt, and how good it is."""
  ours, theirs = last_checkpoint(workdir), last_checkpoint(reference)
  assert ours.keys() == theirs.keys()
  for name, array in ours.items():
    np.testing.assert_allclose(array, theirs[name], rtol=1e-9, atol=1e-9, err_msg=name)
  metrics, expected = (json.loads((w / "metrics.json").read_text()) for w in (workdir, reference))
  assert metrics["step"] == NUM_STEPS
  assert metrics["all"] == pytest.approx(expected["all"], rel=1e-9)


def test_two_nodes_compute_what_one_process_does(two_nodes: Job, one_process: Path):
  assert_equal_to_rounding(workdir_of(two_nodes), one_process)


def test_the_log_is_that_of_process_0_and_whole(two_nodes: Job):
  *lines, last = two_nodes.lines()
  assert last == "launch/slurm.sbatch: finished"
  # Process 1 has nothing to say, and neither have Orbax and Gloo.
  assert {line[:3] for line in lines} <= {"0: ", "0:"}, lines
  port = 61440 + int(two_nodes.number)  # below 4096
  assert lines[0] == f"0: joining 2 processes at 127.0.0.1:{port}"
  steps = [int(found[1]) for line in lines if (found := re.match(r"0: step (\d+)/", line))]
  assert steps == list(range(1, NUM_STEPS + 1))
  assert any("steps to go on 2 cpu device(s)" in line for line in lines)
  assert not [line for line in lines if "Gloo" in line or re.match(r"0: [WEI]\d{4} ", line)]


def test_two_processes_of_a_node_compute_what_one_process_does(
  submit: Submit, one_process: Path, tmp_path: Path
):
  job = submit(ONE_NODE, tmp_path / "workdir")
  assert job.wait() == "COMPLETED", job.lines()
  assert any("steps to go on 2 cpu device(s)" in line for line in job.lines())
  assert_equal_to_rounding(workdir_of(job), one_process)


def wait_for_steps(job: Job, count: int) -> None:
  """Returns when a job has logged so many more updates."""
  job.wait_for("  loss ", sum("  loss " in line for line in job.lines()) + count)


def test_an_interrupted_job_ends_as_an_uninterrupted_one(
  submit: Submit, cluster: SlurmCluster, two_nodes: Job, tmp_path: Path
):
  job = submit(TWO_NODES, tmp_path / "workdir")
  wait_for_steps(job, 2)
  cluster.run("scontrol", "requeue", job.number)
  job.wait_for("resuming from step")

  wait_for_steps(job, 1)
  cluster.run("scancel", "--signal=TERM", job.number)
  job.wait_for("resuming from step", 2)

  wait_for_steps(job, 1)
  (task,) = cluster.node_processes("n2", job.number, "0")
  os.kill(task, signal.SIGKILL)
  job.wait_for("resuming from step", 3)

  wait_for_steps(job, 1)
  (task,) = cluster.node_processes("n2", job.number, "0")
  os.kill(cluster.step_daemon(task), signal.SIGKILL)
  assert job.wait() == "COMPLETED", job.lines()

  # SLURM may end a job that has just come back once more, with what it meant for the one before.
  assert int(job.field("Restarts")) >= 3
  saved = [found[1] for line in job.lines() if (found := re.search(r"step (\d+) is saved", line))]
  assert len(set(saved)) == 2, job.lines()
  for step in saved:
    assert any(f"resuming from step {step} in" in line for line in job.lines())
  assert sum("fresh start" in line for line in job.lines()) == 1
  assert difference(workdir_of(job), workdir_of(two_nodes)) is None


@pytest.fixture
def fake_training(tmp_path: Path) -> Callable[[str], dict[str, str]]:
  """Makes the variable that puts a few lines of Bash in the place of the training."""

  def make(body: str) -> dict[str, str]:
    python = tmp_path / "python"
    python.write_text(f"#!/usr/bin/env bash\n{body}\n")
    python.chmod(0o755)
    return {"PYTHON": str(python)}

  return make


def test_a_crash_is_tried_again_so_many_times(
  cluster: SlurmCluster,
  fake_training: Callable[[str], dict[str, str]],
  repository: Path,
  tmp_path: Path,
):
  variables = fake_training("""printf '<%s>' "$@"; echo; exit 7""") | {"MAX_RESTARTS": "1"}
  command = [*TWO_NODES, "launch/slurm.sbatch", "--workdir=with a space"]
  job = cluster.submit(command, tmp_path / "log", repository, variables)
  assert job.wait() == "FAILED"
  assert (job.field("ExitCode"), job.field("Restarts")) == ("7:0", "1")
  lines = job.lines()
  assert "<-m><magnifier_jax.main><--workdir=with a space>" in {line[3:] for line in lines}
  assert lines[-1] == "launch/slurm.sbatch: exit code 7 after 1 restarts; giving up"


def test_an_error_of_the_user_counts_more_than_what_it_leads_to(
  cluster: SlurmCluster,
  fake_training: Callable[[str], dict[str, str]],
  repository: Path,
  tmp_path: Path,
):
  # srun ends process 1 with SIGTERM, and its own exit code is the higher one.
  variables = fake_training("((SLURM_PROCID)) || exit 2; trap 'exit 143' TERM; sleep 60 & wait")
  command = [*TWO_NODES, "launch/slurm.sbatch"]
  job = cluster.submit(command, tmp_path / "log", repository, variables)
  assert job.wait() == "FAILED"
  assert (job.field("ExitCode"), job.field("Restarts")) == ("2:0", "0")
  assert job.lines()[-1].endswith("stopped by an error that another try would not mend")


def test_a_cancelled_job_does_not_come_back(
  cluster: SlurmCluster,
  fake_training: Callable[[str], dict[str, str]],
  repository: Path,
  tmp_path: Path,
):
  variables = fake_training("echo here; trap 'exit 143' TERM; sleep 60 & wait")
  command = [*TWO_NODES, "launch/slurm.sbatch"]
  job = cluster.submit(command, tmp_path / "log", repository, variables)
  job.wait_for(": here", 2)
  cluster.run("scancel", job.number)
  assert job.wait() == "CANCELLED"
  cluster.wait_until_idle()
  assert job.field("Restarts") == "0"
  assert not any("back into the queue" in line for line in job.lines())


def test_an_error_of_the_user_is_not_tried_again(submit: Submit, tmp_path: Path):
  job = submit(TWO_NODES, tmp_path / "workdir", "--config.data.images_per_identity=0")
  assert job.wait() == "FAILED"
  assert (job.field("ExitCode"), job.field("Restarts")) == ("2:0", "0")
  assert job.lines()[-1].endswith("stopped by an error that another try would not mend")


def test_a_time_limit_saves_before_it_ends_the_job(
  submit: Submit, cluster: SlurmCluster, tmp_path: Path
):
  # Nearly all of two minutes is the time for saving: SIGTERM comes when SLURM looks next, which it
  # does every half minute. This run would go on for hours, and does nothing but train: SIGTERM
  # during an evaluation finds everything saved.
  job = submit(
    (*TWO_NODES, "--signal=TERM@110"),
    tmp_path / "workdir",
    "--config.training.num_epochs=9999",
    "--config.evaluation.every_epochs=9999",
  )
  wait_for_steps(job, 1)
  hours, minutes, _ = job.field("RunTime").split(":")
  minutes_passed = 60 * int(hours) + int(minutes)
  cluster.run("scontrol", "update", f"JobId={job.number}", f"TimeLimit={minutes_passed + 2}")
  job.wait_for("back into the queue (restart 1 of 20)")
  (step,) = {found[1] for line in job.lines() if (found := re.search(r"step (\d+) is saved", line))}
  job.wait_for(f"resuming from step {step} in")
  cluster.run("scancel", job.number)


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun; .ci/run installs Open MPI")
def test_open_mpi_computes_what_one_process_does(
  arguments: list[str],
  variables: dict[str, str],
  repository: Path,
  one_process: Path,
  tmp_path: Path,
):
  mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"]
  main = [variables["PYTHON"], "-m", "magnifier_jax.main", f"--workdir={tmp_path}", *arguments]
  log = run([*mpirun, *main], variables, repository).splitlines()
  assert re.fullmatch(r"joining 2 processes at [\d.]+:6\d{4}", log[0])
  assert any("steps to go on 2 cpu device(s)" in line for line in log)
  assert not [line for line in log if "Gloo" in line]
  assert_equal_to_rounding(tmp_path, one_process)
