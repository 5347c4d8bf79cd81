"""Rows × seeds: what is run, in which order, what is skipped, and what is left behind."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from magnifier_jax.comparison import ablation, training_process
from magnifier_jax.comparison import output_files as comparison_files
from magnifier_jax.comparison.ablation import Ablation, AblationError, plan
from magnifier_jax.comparison.runs import compare
from magnifier_jax.config import ConfigError
from magnifier_jax.files.whole_file import WriteError
from magnifier_jax.report.charts import Chart
from magnifier_jax.tools import ablate
from tests.comparison.logs import write_log
from tests.data.noise_tree import write_tree
from tests.full_disk import full_disk
from tests.tools.evaluated_runs import accuracies, make_report_older, write_run

SMALL = "configs/cuhk03.py:small"
FOUR_EPOCHS = ("training.num_epochs=4", "loss.diversity_start_epoch=3")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
  """Leaves the bar charts out, which take a second a comparison."""
  monkeypatch.setattr(comparison_files, "render_page", lambda _: "")
  monkeypatch.setattr(comparison_files, "accuracy_chart", lambda _: Chart("", "", ""))


class FakeRunner:
  """Leaves the results of a run at once; a variant in `broken` fails."""

  def __init__(self, *broken: str):
    self.broken = broken
    self.titles: list[str] = []
    self.arguments: list[Sequence[str]] = []

  def __call__(self, arguments: Sequence[str], log: Path, on_line: Callable[[str], None]) -> int:
    workdir = log.parent
    self.titles.append(f"{workdir.parent.name} {workdir.name}")
    self.arguments.append(arguments)
    if workdir.parent.name in self.broken:
      for line in ("fresh start", "step 20/40  epoch 2.00", "error: out of luck"):
        on_line(line)
      return 2
    run = self.planned[workdir]
    write_run(workdir, ConfigDict(run.config.to_dict()), {"all": accuracies(0.1, 0.2)})
    on_line("step 40/40  epoch 4.00")
    return 0


def run_all(
  output: Path, runner: FakeRunner, settings: Sequence[str] = FOUR_EPOCHS
) -> tuple[list[str], str]:
  """Runs two variants with two seeds; returns what failed and what was printed."""
  runs = plan(SMALL, ["baseline", "all"], [0, 1], output, settings)
  runner.planned = {run.workdir: run for run in runs}
  console = io.StringIO()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(ablation, "run_training", runner)
    failed = Ablation(runs, output, console).run()
  return [f"{run.row} seed{run.seed}" for run in failed], console.getvalue()


EVERYTHING = ["baseline seed0", "all seed0", "baseline seed1", "all seed1"]


@pytest.mark.usefixtures("no_pictures")
def test_all_variants_of_a_seed_come_before_the_next_seed(tmp_path: Path):
  runner = FakeRunner()
  failed, printed = run_all(tmp_path, runner)
  assert (failed, runner.titles) == ([], EVERYTHING)
  assert runner.arguments[2] == (
    "--config=configs/cuhk03.py:small,baseline",
    f"--workdir={tmp_path}/baseline/seed1",
    "--config.training.num_epochs=4",
    "--config.loss.diversity_start_epoch=3",
    "--config.seed=1",
  )
  lines = printed.splitlines()
  assert lines[0] == f"[1/4] baseline, seed 0: started, {tmp_path}/baseline/seed0/console.log"
  assert lines[-1].startswith("[4/4] all, seed 1: rank-1 10.0 %, mAP 20.0 %, took 0:00:0")
  assert lines[-1].endswith("about 0:00:00 left in all")


@pytest.mark.usefixtures("no_pictures")
def test_the_processor_time_of_each_run_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  seconds = iter([0, 61, 100, 223, 300, 300, 300, 300])
  monkeypatch.setattr(ablation, "_seconds_of_children", lambda: next(seconds))
  _, printed = run_all(tmp_path, FakeRunner())
  assert (
    "[1/4] baseline, seed 0: rank-1 10.0 %, mAP 20.0 %, took 0:00:00, of CPU time 0:01:01; "
    in (printed)
  )
  assert (
    "[2/4] all, seed 0: rank-1 10.0 %, mAP 20.0 %, took 0:00:00, of CPU time 0:02:03; " in printed
  )


def test_the_processor_time_is_that_of_processes_that_have_ended():
  before = ablation._seconds_of_children()
  subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
  assert 0.05 < ablation._seconds_of_children() - before < 10


@pytest.mark.usefixtures("no_pictures")
def test_what_has_finished_is_skipped(tmp_path: Path):
  run_all(tmp_path, FakeRunner())
  runner = FakeRunner()
  failed, printed = run_all(tmp_path, runner)
  assert (failed, runner.titles) == ([], [])
  assert printed.splitlines()[1] == (
    "[2/4] all, seed 0: finished before, rank-1 10.0 %, mAP 20.0 %"
  )


def test_rows_of_settings_follow_those_of_variants(tmp_path: Path):
  rows = ["plain=", "large=data.image_size_hw=(192,96) training.num_epochs=2"]
  runs = plan(SMALL, ["baseline"], [3], tmp_path, ["training.num_epochs=4"], rows)
  assert [run.row for run in runs] == ["baseline", "plain", "large"]
  assert runs[2].arguments == (
    "--config=configs/cuhk03.py:small",
    f"--workdir={tmp_path}/large/seed3",
    "--config.training.num_epochs=4",
    "--config.name=cuhk03_small_large",
    "--config.data.image_size_hw=(192,96)",
    "--config.training.num_epochs=2",
    "--config.seed=3",
  )
  large = runs[2].config
  assert (large.data.image_size_hw, large.training.num_epochs) == ((192, 96), 2)
  assert (runs[1].config.name, runs[1].config.training.num_epochs) == ("cuhk03_small_plain", 4)


def test_settings_take_the_place_of_the_published_rows(tmp_path: Path):
  assert ablate._variants(None, ["plain="]) == []
  assert ablate._variants("all,fusion", ["plain="]) == ["all", "fusion"]
  assert ablate._variants(None, [])[0] == "baseline"


@pytest.mark.usefixtures("no_pictures")
def test_a_run_without_the_occluded_queries_that_are_asked_for_is_run_again(tmp_path: Path):
  run_all(tmp_path, FakeRunner())
  runner = FakeRunner()
  run_all(tmp_path, runner, (*FOUR_EPOCHS, "evaluation.occlude=head"))
  assert runner.titles == EVERYTHING
  for run in runner.planned.values():
    hidden = {"hidden_share": 0.1, "all": accuracies(0.1, 0.1)}
    found = {
      "mask": "predicted",
      "fill": "mean",
      "seed": 0,
      "parts": {"head": hidden},
      "bottom": {},
    }
    rows = {"all": accuracies(0.1, 0.2), "occlusion": found}
    write_run(run.workdir, ConfigDict(run.config.to_dict()), rows)
  runner = FakeRunner()
  run_all(tmp_path, runner, (*FOUR_EPOCHS, "evaluation.occlude=head"))
  assert runner.titles == []


@pytest.mark.parametrize(
  "settings",
  [
    pytest.param(("training.num_epochs=5", "loss.diversity_start_epoch=3"), id="longer"),
    pytest.param((*FOUR_EPOCHS, "optimizer.learning_rate=0.1"), id="another rate"),
    pytest.param((*FOUR_EPOCHS, "evaluation.rerank=True"), id="re-ranked"),
  ],
)
@pytest.mark.usefixtures("no_pictures")
def test_other_settings_are_run(tmp_path: Path, settings: Sequence[str]):
  run_all(tmp_path, FakeRunner())
  runner = FakeRunner()
  run_all(tmp_path, runner, settings)
  assert runner.titles == EVERYTHING


@pytest.mark.usefixtures("no_pictures")
def test_a_setting_without_consequence_is_not(tmp_path: Path):
  run_all(tmp_path, FakeRunner())
  runner = FakeRunner()
  run_all(tmp_path, runner, (*FOUR_EPOCHS, "data.num_workers=3"))
  assert runner.titles == []


@pytest.mark.usefixtures("no_pictures")
def test_what_an_interruption_left_is_run_again(tmp_path: Path):
  run_all(tmp_path, FakeRunner())
  make_report_older(tmp_path / "all" / "seed0")
  (tmp_path / "baseline" / "seed1" / "metrics.json").unlink()
  runner = FakeRunner()
  run_all(tmp_path, runner)
  assert runner.titles == ["all seed0", "baseline seed1"]


@pytest.mark.usefixtures("no_pictures")
def test_an_evaluation_of_another_checkpoint_or_other_people_is_not_the_end_of_a_run(
  tmp_path: Path,
):
  run_all(tmp_path, FakeRunner())
  changes = {"all/seed0": {"checkpoint_chosen_on": "test people"}}
  changes["baseline/seed1"] = {"validation_people": 50}
  for name, change in changes.items():
    path = tmp_path / name / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    os.utime(path, (0, 0))  # before its report
  runner = FakeRunner()
  run_all(tmp_path, runner)
  assert runner.titles == ["all seed0", "baseline seed1"]


@pytest.mark.usefixtures("no_pictures")
def test_a_failed_run_is_reported_and_the_others_go_on(tmp_path: Path):
  runner = FakeRunner("baseline")
  failed, printed = run_all(tmp_path, runner)
  assert runner.titles == EVERYTHING
  assert failed == ["baseline seed0", "baseline seed1"]
  assert "[1/4] baseline, seed 0: FAILED after 0:00:00, exit code 2; " in printed
  assert "    step 20/40  epoch 2.00\n    error: out of luck\n" in printed
  table = json.loads((tmp_path / "comparison.json").read_text())
  assert [group["seeds"] for group in table["test_sets"][0]["groups"]] == [[0, 1]]


@pytest.mark.usefixtures("no_pictures")
def test_a_run_without_results_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setattr(ablation, "run_training", lambda *_: 0)
  runs = plan(SMALL, ["all"], [0], tmp_path, ())
  console = io.StringIO()
  assert Ablation(runs, tmp_path, console).run() == runs
  assert "it left no results of its last step" in console.getvalue()


def test_comparison_is_written_after_every_run(tmp_path: Path):
  class Interrupted(FakeRunner):
    def __call__(self, *arguments: object) -> int:
      if len(self.titles) == 1:
        raise KeyboardInterrupt
      return super().__call__(*arguments)

  with pytest.raises(KeyboardInterrupt):
    run_all(tmp_path, Interrupted())
  assert {path.name for path in tmp_path.glob("comparison.*")} == {
    f"comparison.{kind}" for kind in ("md", "json", "html", "svg")
  }
  assert "cuhk03_small_baseline" in (tmp_path / "comparison.md").read_text()


@pytest.mark.usefixtures("no_pictures")
def test_several_data_sets_have_no_common_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  runs = plan(SMALL, ["all", "detected+baseline"], [0], tmp_path, FOUR_EPOCHS)
  assert runs[1].arguments[0] == "--config=configs/cuhk03.py:small,detected,baseline"
  runner = FakeRunner()
  runner.planned = {run.workdir: run for run in runs}
  monkeypatch.setattr(ablation, "run_training", runner)
  both = Ablation(runs, tmp_path, io.StringIO())
  assert both.run() == []  # the first run's picture goes with the second's results
  assert "cuhk03_np/detected" in both.compare()
  assert not (tmp_path / "comparison.svg").exists()


@pytest.mark.parametrize(
  ("arguments", "error", "message"),
  [
    (["--set", "seed=1"], AblationError, "--set: the seed is for --seeds to set"),
    (["--set", "training.num_epochs"], AblationError, "does not look like training.num_epochs=4"),
    (["--set", "training.num_epoch=4"], ConfigError, "no such field; did you mean num_epochs?"),
    (["--set", "training.num_epochs=0"], ConfigError, "num_epochs: must be at least 1"),
    (["--variants=all,smal"], ConfigError, "no variant 'smal'; choose from"),
    (["--variants=all,,paper"], AblationError, "--variants: 'all,,paper' must be names"),
    (["--variants=all,all"], AblationError, "--variants: all is there more than once"),
    (["--settings", "cosine"], AblationError, "--settings: 'cosine' does not look like cosine="),
    (["--settings", "../up="], AblationError, r"--settings: '\.\./up=' does not look like"),
    (["--settings", "a=seed=1"], AblationError, "--settings a: the seed is for --seeds to set"),
    (["--settings", "a=data.nam"], AblationError, "--settings a: 'data.nam' does not look like"),
    (["--settings", "a=name='"], AblationError, '--settings: "a=name=\'": No closing quotation'),
    (["--settings", "a=", "a=seed=1"], AblationError, "--settings a: the seed is"),
    (["--settings", "a=", "a="], AblationError, "--settings: a is there more than once"),
    (["--settings", "all=", "--variants=all"], AblationError, "--settings: all is there more"),
    (["--settings", "a=loss.margin=1"], ConfigError, "config.loss.margin: no such field"),
    (["--seeds=0,x"], AblationError, "--seeds: '0,x' must be whole numbers"),
    (["--seeds=1,1"], AblationError, "--seeds: 1 is there more than once"),
    (["--seeds=-1"], ConfigError, "config.seed: must be from 0"),
  ],
)
def test_mistakes_are_found_before_anything_runs(
  tmp_path: Path, arguments: list[str], error: type[Exception], message: str
):
  with pytest.raises(error, match=message):
    ablate.main([f"--config={SMALL}", f"--output={tmp_path / 'new'}", *arguments])
  assert not (tmp_path / "new").exists()


def test_a_diversity_loss_that_never_starts_is_noted(tmp_path: Path):
  runs = plan(SMALL, ["baseline", "no_diversity", "all"], [0], tmp_path, ["training.num_epochs=4"])
  [note] = ablate._notes(runs)
  assert note.startswith("all: the diversity loss would start in epoch 7 of 4")


class _Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


@pytest.mark.usefixtures("no_pictures")
def test_a_terminal_follows_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  [run] = plan(SMALL, ["all"], [0], tmp_path, FOUR_EPOCHS)

  def train(arguments: Sequence[str], log: Path, on_line: Callable[[str], None]) -> int:
    log.parent.mkdir(parents=True)
    write_log(log.parent, 1.0)
    on_line("whatever a run prints")
    return 2

  monkeypatch.setattr(ablation, "run_training", train)
  monkeypatch.setattr(ablation, "_FOLLOW_SECONDS", 0.0)
  console = _Terminal()
  Ablation([run], tmp_path, console).run()
  assert "[1/1] all, seed 0: epoch 1.00 of 4, 0:00:00 left" in console.getvalue()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_command_ends_cleanly(repository: Path, tmp_path: Path, number: int, code: int):
  program = (
    "import sys, time\nfrom magnifier_jax.comparison import ablation\n"
    "from magnifier_jax.tools import ablate\n"
    "class Waiting(ablation.Ablation):\n"
    "  def run(self):\n    print('waiting', flush=True)\n    time.sleep(60)\n"
    "ablate.Ablation = Waiting\nablate.cli()"
  )
  command = [sys.executable, "-c", program, f"--config={SMALL}", f"--output={tmp_path}"]
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
  process = subprocess.Popen(command, cwd=repository, text=True, **pipes)
  try:
    assert any(line == "waiting\n" for line in process.stdout)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
  finally:
    process.kill()
  assert (process.returncode, "Traceback" in errors) == (code, False)


@pytest.mark.slow
def test_a_real_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  """One epoch of two updates on noise, in a process of its own; once more, it is finished."""
  monkeypatch.chdir(repository)
  monkeypatch.setenv("XLA_FLAGS", "")  # one device
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "xla"))
  write_tree(tmp_path, train_images=(2, 2), test_people=2)
  arguments = [
    f"--config={SMALL}",
    "--variants=baseline",
    f"--output={tmp_path / 'runs'}",
    "--set",
    f"data.manual_dir={tmp_path}",
    f"data.data_dir={tmp_path / 'prepared'}",
    "data.image_size_hw=(32, 32)",
    "data.identities_per_batch=2",
    "data.images_per_identity=2",
    "training.num_epochs=1",
    "training.steps_per_epoch=2",
    "training.log_every_steps=1",
    "evaluation.batch_size=2",
    "evaluation.every_epochs=1",
  ]
  assert ablate.main(arguments) == 0
  workdir = tmp_path / "runs" / "baseline" / "seed0"
  assert "step 2/2" in (workdir / "console.log").read_text()
  [group] = compare([workdir])[0].groups
  assert (group.name, group.step, group.rows) == ("cuhk03_small_baseline", 2, ["all"])
  assert group.untrained("mAP") is not None
  before = (workdir / "console.log").read_text()
  started = time.monotonic()
  assert ablate.main(arguments) == 0
  assert (workdir / "console.log").read_text() == before
  assert time.monotonic() - started < 30


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(WriteError, match=r"file/out: cannot be written: Not a directory"):
    ablate.main([f"--config={SMALL}", f"--output={tmp_path / 'file' / 'out'}"])


def test_a_full_disk_stops_the_run_and_is_one_line(tmp_path: Path, capsys):
  log = tmp_path / "run" / "console.log"
  with full_disk(10), pytest.raises(WriteError, match=r"console\.log: .*; free some space there"):
    training_process.run_training(["--config=nowhere.py"], log, lambda _: None)
