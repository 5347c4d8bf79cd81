"""The SLURM batch script where it cannot run; test_real_slurm.py is about where it can."""

from pathlib import Path

import pytest

from tests.launch.conftest import FakePrograms


@pytest.mark.parametrize(
  ("variables", "message"),
  [
    ({}, "submit it with sbatch"),
    ({"SLURM_JOB_ID": "41", "PYTHON": "no/python"}, "no Python at 'no/python'"),
  ],
)
def test_bad_input_is_one_line(
  launch: Path, programs: FakePrograms, variables: dict[str, str], message: str
):
  programs.add("srun")
  result = programs.run("bash", launch / "slurm.sbatch", "--config=configs/cuhk03.py", **variables)
  assert result.returncode == 2
  assert message in result.stderr
  assert programs.calls == []
