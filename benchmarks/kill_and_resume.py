r"""Kills a training run again and again, and compares what it ends with to an uninterrupted run.

  python -m benchmarks.kill_and_resume --kills=50

A small run on images of noise is trained once from start to end. Then the same command is started
in another workdir, ended by a signal at a random moment, started again, and so on. Every third time
the moment is during a save. One signal in four is SIGTERM, which must lead to exit code 143; the
others are SIGKILL. Whenever the run reaches its end, all arrays of its last checkpoint,
`metrics.jsonl` (without images a second) and `metrics.json` are compared bit for bit, and another
run is started until there were enough kills. Exit code 1: something differed.
"""

import argparse
import collections
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

from magnifier_jax.workdir.metrics_log import read_records

SMALL_NETWORK = (
  "--config.data.image_size_hw=(32, 32)",
  "--config.data.identities_per_batch=4",
  "--config.data.images_per_identity=2",
  "--config.data.missing_part_labels=bands",
  "--config.model.adversarial_dim=16",
  "--config.model.fusion_dim=16",
  "--config.evaluation.batch_size=8",
)
_SCHEDULE = (
  "--config.training.num_epochs=8",
  "--config.training.steps_per_epoch=6",
  "--config.training.log_every_steps=1",
  "--config.evaluation.every_epochs=1",
  "--config.evaluation.initial=True",
)
_STARTED = "steps to go"  # in the line before the first step
_SECONDS_TO_START = 300
_REPOSITORY = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Moment:
  """When to end a run.

  Attributes:
    signal: SIGKILL or SIGTERM.
    in_save: counts from the moment at which a checkpoint's files appear, not from the first step.
    seconds: after that.
  """

  signal: signal.Signals
  in_save: bool
  seconds: float

  def __str__(self) -> str:
    return f"{self.signal.name} {'during a save' if self.in_save else 'at any moment'}"


class TrainingProcess:
  """`python -m magnifier_jax.main` in a process, whose lines are kept.

  Args:
    arguments: of main.
    workdir: of the run.
    launcher: command that starts it.
  """

  def __init__(self, arguments: Sequence[str], workdir: Path, launcher: Sequence[str] = ()):
    self.workdir = workdir
    self.lines: list[str] = []
    self._started = threading.Event()
    command = [sys.executable, "-m", "magnifier_jax.main", *arguments, f"--workdir={workdir}"]
    self._process = subprocess.Popen(
      [*launcher, *command],
      cwd=_REPOSITORY,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    self._reader = threading.Thread(target=self._read)
    self._reader.start()

  @property
  def id(self) -> int:
    """Of the process."""
    return self._process.pid

  def is_running(self) -> bool:
    """Whether it has not ended yet."""
    return self._process.poll() is None

  def finish(self) -> int:
    """Waits for its end; returns the exit code, negative for a signal."""
    code = self._process.wait()
    self._reader.join()
    return code

  def end_at(self, moment: Moment) -> int:
    """Sends a signal at a moment, or lets the run end before; returns the exit code."""
    self._started.wait(_SECONDS_TO_START)
    while moment.in_save and self.is_running() and not self._is_saving():
      time.sleep(0.002)
    time.sleep(moment.seconds)
    self._process.send_signal(moment.signal)
    return self.finish()

  def _is_saving(self) -> bool:
    return any((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))

  def _read(self) -> None:
    for line in self._process.stdout:
      self.lines.append(line.rstrip("\n"))
      if _STARTED in line:
        self._started.set()
    self._started.set()


def write_images(folder: Path) -> None:
  """Writes images of noise: 4 people to train on, 4 others to test on, two cameras."""
  random_pixels = np.random.default_rng(0)
  for split, people in (("train", range(1, 5)), ("query", range(5, 9)), ("gallery", range(5, 9))):
    (folder / split).mkdir(parents=True)
    for person in people:
      for camera in (1, 2):
        pixels = random_pixels.integers(0, 256, (48, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / split / f"{person:04}_c{camera}_1.png")


def difference(workdir: Path, reference: Path) -> str | None:
  """Returns in what two finished runs differ, or None when they are the same bit for bit."""
  if _records(workdir) != _records(reference):
    return "metrics.jsonl"
  if (workdir / "metrics.json").read_bytes() != (reference / "metrics.json").read_bytes():
    return "metrics.json"
  ours, theirs = last_checkpoint(workdir), last_checkpoint(reference)
  if ours.keys() != theirs.keys():
    return "the names of the arrays"
  for name, array in ours.items():
    if array.tobytes() != theirs[name].tobytes():
      return name
  return None


def _records(workdir: Path) -> list[dict[str, float]]:
  return [
    {name: value for name, value in record.items() if name != "images_per_second"}
    for record in read_records(workdir)
  ]


def last_checkpoint(workdir: Path) -> dict[str, np.ndarray]:
  """Returns the arrays that a finished run ended with, by their names."""
  step = json.loads((workdir / "metrics.json").read_text())["step"]
  folder = workdir.absolute() / "checkpoints" / str(step) / "state"
  with ocp.PyTreeCheckpointer() as checkpointer:
    # As NumPy's arrays: JAX's would want the devices of the run, and round float64.
    tree = checkpointer.metadata(folder).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    state = checkpointer.restore(folder, restore_args=as_numpy)
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _draw_moment(number: int, window_s: float) -> Moment:
  chosen = signal.SIGTERM if random.random() < 0.25 else signal.SIGKILL
  if number % 3 == 0:
    return Moment(chosen, True, random.uniform(0, 0.5))
  return Moment(chosen, False, random.uniform(0, window_s))


class Campaign:
  """Kills, and what came of them.

  Args:
    arguments: of main, without the workdir.
    folder: gets the workdirs.
    window_s: kills at any moment come within so many seconds from the first step.
  """

  def __init__(self, arguments: Sequence[str], folder: Path, window_s: float):
    self._arguments = arguments
    self._folder = folder
    self._window_s = window_s
    self.kills = collections.Counter()
    self.too_late = 0
    self.compared = 0
    self.problems: list[str] = []
    self._reference = folder / "uninterrupted"

  def run(self, num_kills: int) -> None:
    """Trains without interruption, then kills and resumes until there were enough kills."""
    reference = TrainingProcess(self._arguments, self._reference)
    if reference.finish() != 0:
      raise RuntimeError("the uninterrupted run failed:\n" + "\n".join(reference.lines))
    while self.kills.total() < num_kills:
      workdir = self._folder / f"killed-{self.compared}"
      self._kill_until_the_end(workdir, num_kills)
      if found := difference(workdir, self._reference):
        self.problems.append(f"{workdir.name}: {found} differs")
      self.compared += 1
      shutil.rmtree(workdir)

  def _kill_until_the_end(self, workdir: Path, num_kills: int) -> None:
    code = None
    while code != 0:
      process = TrainingProcess(self._arguments, workdir)
      if self.kills.total() >= num_kills:
        code = process.finish()
      else:
        moment = _draw_moment(self.kills.total(), self._window_s)
        code = process.end_at(moment)
        self._note(moment, code)
      last = process.lines[-1] if process.lines else ""
      print(f"{workdir.name}: exit code {code} after {last!r}", flush=True)
      if code not in (0, -signal.SIGKILL, 128 + signal.SIGTERM):
        raise RuntimeError("\n".join(process.lines))

  def _note(self, moment: Moment, code: int) -> None:
    if code == 0:
      self.too_late += 1
      return
    self.kills[str(moment)] += 1
    expected = -signal.SIGKILL if moment.signal == signal.SIGKILL else 128 + signal.SIGTERM
    if code != expected:
      self.problems.append(f"{moment}: exit code {code}")


def main(argv: list[str]) -> int:
  """Runs the campaign and prints its summary; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--kills", type=int, default=50)
  parser.add_argument("--seed", type=int, default=0, help="of the moments")
  parser.add_argument("--window", type=float, default=6.0, help="seconds in which kills come")
  options = parser.parse_args(argv)
  random.seed(options.seed)
  started = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compilation_cache")
    write_images(Path(folder) / "images" / "my_images")
    data = [f"--config.data.manual_dir={folder}/images", f"--config.data.data_dir={folder}/data"]
    arguments = ["--config=configs/custom.py:small", *data, *SMALL_NETWORK, *_SCHEDULE]
    campaign = Campaign(arguments, Path(folder), options.window)
    campaign.run(options.kills)
  for moment, count in sorted(campaign.kills.items()):
    print(f"{count:4} {moment}")
  print(f"{campaign.kills.total():4} kills, {campaign.too_late} signals after the end of a run")
  print(f"{campaign.compared:4} runs reached their end and were compared")
  print(f"{len(campaign.problems):4} problems, in {(time.monotonic() - started) / 60:.0f} minutes")
  for problem in campaign.problems:
    print(problem)
  return 1 if campaign.problems else 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
