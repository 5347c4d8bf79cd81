"""The SLURM batch script: what it starts, and when it goes back into the queue."""

import sys
from pathlib import Path

import pytest

from tests.launch.conftest import FakePrograms

JOB = {"SLURM_JOB_ID": "41", "SLURM_CPUS_PER_TASK": "8", "PYTHON": sys.executable}
SRUN = [
  "srun",
  "--label",
  "--kill-on-bad-exit=1",
  "--gpu-bind=none",
  "--cpus-per-task=8",
  sys.executable,
  "-m",
  "magnifier_jax.main",
  "--config=configs/cuhk03.py",
  "--workdir=runs/with a space",
]
LOOK_UP = ["squeue", "--noheader", "--job=41", "--format=%T"]
REQUEUE = ["scontrol", "requeue", "41"]


@pytest.mark.parametrize(
  ("srun_exit", "state", "restarts", "calls", "exit_code"),
  [
    (0, "RUNNING", "0", [SRUN], 0),
    (2, "RUNNING", "0", [SRUN], 2),
    (143, "RUNNING", "0", [SRUN, LOOK_UP, REQUEUE], 0),
    (1, "RUNNING", "19", [SRUN, LOOK_UP, REQUEUE], 0),
    (1, "RUNNING", "20", [SRUN], 1),
    (143, "CANCELLED", "0", [SRUN, LOOK_UP], 143),
  ],
)
def test_commands(
  launch: Path,
  programs: FakePrograms,
  srun_exit: int,
  state: str,
  restarts: str,
  calls: list[list[str]],
  exit_code: int,
):
  programs.add("srun", f"exit {srun_exit}")
  programs.add("squeue", f"echo {state}")
  programs.add("scontrol")
  result = programs.run(
    "bash", launch / "slurm.sbatch", *SRUN[-2:], **JOB, SLURM_RESTART_COUNT=restarts
  )
  assert programs.calls == calls
  assert result.returncode == exit_code


def test_directives_that_resuming_rests_on(launch: Path):
  directives = [
    line.removeprefix("#SBATCH ")
    for line in (launch / "slurm.sbatch").read_text().splitlines()
    if line.startswith("#SBATCH ")
  ]
  # Without 'B:' the signal goes to the processes, not to the batch script.
  assert {"--requeue", "--open-mode=append", "--signal=TERM@180"} <= set(directives)


@pytest.mark.parametrize(
  ("variables", "message"),
  [({}, "submit it with sbatch"), (JOB | {"PYTHON": "no/python"}, "no Python at 'no/python'")],
)
def test_bad_input_is_one_line(
  launch: Path, programs: FakePrograms, variables: dict[str, str], message: str
):
  programs.add("srun")
  result = programs.run("bash", launch / "slurm.sbatch", "--config=configs/cuhk03.py", **variables)
  assert result.returncode == 2
  assert message in result.stderr
  assert programs.calls == []
