r"""Does things to a job on a real SLURM cluster, and compares what it ends with.

  python -m benchmarks.slurm_job --times=10

On a cluster of two nodes on this machine (benchmarks/slurm_cluster.py), `launch/slurm.sbatch`
trains a tiny run on images of noise, with one process on each node, once without interruption.
Then each of these is done to such a job, so many times, at a random update; nothing else is done
to bring it back. At its end all arrays of the last checkpoint, `metrics.jsonl` (without images a
second) and `metrics.json` are compared bit for bit. Exit code 1: one was lost or unequal.

  requeue    scontrol requeue
  TERM       scancel --signal=TERM
  KILL       SIGKILL to one of the two processes
  limit      its time limit is near
  node lost  SIGKILL to the daemon of the second node and all that runs there; the node comes back
             when SLURM has noticed
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.kill_and_resume import SMALL_NETWORK, difference, write_images
from benchmarks.slurm_cluster import Job, SlurmCluster, missing_programs

_SCHEDULE = (
  "--config.model.backbone=resnet10_narrow",
  "--config.training.num_epochs=8",
  "--config.training.steps_per_epoch=10",
  "--config.training.log_every_steps=1",
  "--config.evaluation.every_epochs=4",
  "--config.evaluation.initial=False",
)
_LAST_MOMENT = 50  # updates, of 80; the answer may come some later
_NOT_INTERRUPTED = "not interrupted"
_REPOSITORY = Path(__file__).parents[1]


def _requeue(cluster: SlurmCluster, job: Job) -> None:
  cluster.run("scontrol", "requeue", job.number)


def _terminate(cluster: SlurmCluster, job: Job) -> None:
  cluster.run("scancel", "--signal=TERM", job.number)


def _kill(cluster: SlurmCluster, job: Job) -> None:
  (task,) = cluster.node_processes(random.choice(("n1", "n2")), job.number, "0")
  os.kill(task, signal.SIGKILL)


def _near_limit(cluster: SlurmCluster, job: Job) -> None:
  # SIGTERM is due, and SLURM looks every half minute.
  hours, minutes, _ = job.field("RunTime").split(":")
  limit = 60 * int(hours) + int(minutes) + 2
  cluster.run("scontrol", "update", f"JobId={job.number}", f"TimeLimit={limit}")
  job.wait_for("back into the queue")
  cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=UNLIMITED")


def _lose_node(cluster: SlurmCluster, job: Job) -> None:
  cluster.lose_node("n2", job.number)
  cluster.wait_until_down("n2")
  cluster.start_node("n2")


INTERRUPTIONS: dict[str, Callable[[SlurmCluster, Job], None]] = {
  "requeue": _requeue,
  "TERM": _terminate,
  "KILL": _kill,
  "limit": _near_limit,
  "node lost": _lose_node,
}


class Campaign:
  """Jobs, and what came of them.

  Args:
    cluster: that runs them.
    arguments: of main, without the workdir.
    folder: gets workdirs and logs.
  """

  def __init__(self, cluster: SlurmCluster, arguments: Sequence[str], folder: Path):
    self._cluster = cluster
    self._arguments = arguments
    self._folder = folder
    self.ends: Counter[tuple[str, str]] = Counter()
    self._reference = self._submit("uninterrupted")
    if self._reference.wait(1800) != "COMPLETED":
      raise RuntimeError("the uninterrupted job failed:\n" + "\n".join(self._reference.lines()))

  def interrupt(self, name: str, number: int) -> None:
    """Does one thing to one job, and notes how it ends.

    Another job takes the place of one that had finished before, three times at most.
    """
    for attempt in range(3):
      end = self._interrupt_one(name, f"{name.replace(' ', '_')}-{number}-{attempt}")
      if end != _NOT_INTERRUPTED:
        break
    self.ends[name, end] += 1

  def _interrupt_one(self, name: str, log: str) -> str:
    job = self._submit(log)
    # A time limit is up at a moment of SLURM's own.
    moment = 1 if name == "limit" else random.randint(1, _LAST_MOMENT)
    try:
      job.wait_for("  loss ", moment, 1800)
      INTERRUPTIONS[name](self._cluster, job)
    except RuntimeError as error:  # it ended before, or SLURM did not answer as it should
      print(error, flush=True)
    end, restarts = self._end(job), job.field("Restarts")
    print(f"{name} at update {moment}: {end} after {restarts} restarts", flush=True)
    return end

  def _end(self, job: Job) -> str:
    state = job.wait(1800)
    if state != "COMPLETED":
      print("\n".join(job.lines()))
      return f"lost ({state})"
    if job.field("Restarts") == "0":
      return _NOT_INTERRUPTED
    found = difference(_workdir(job), _workdir(self._reference))
    return f"unequal ({found})" if found else "equal"

  def _submit(self, name: str) -> Job:
    log = self._folder / f"{name}.log"
    options = ("--ntasks-per-node=1", "--gpus-per-node=0")
    # Of a limit of two minutes nearly all is the time for saving.
    limit = ("--time=UNLIMITED", "--signal=TERM@110")
    command = [*options, *limit, "launch/slurm.sbatch"]
    arguments = [*self._arguments, f"--workdir={log.with_suffix('')}"]
    variables = {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu", "SLURM_WAIT": "30"}
    return self._cluster.submit([*command, *arguments], log, _REPOSITORY, variables)


def _workdir(job: Job) -> Path:
  return job.log.with_suffix("")


def main(argv: list[str]) -> int:
  """Runs the campaign and prints its table; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--times", type=int, default=10, help="each thing is done (10)")
  parser.add_argument("--only", choices=INTERRUPTIONS, action="append", help="not the others")
  parser.add_argument("--seed", type=int, default=0, help="of the moments")
  options = parser.parse_args(argv)
  if missing := missing_programs():
    parser.error(f"SLURM is not installed: no {', '.join(missing)}")
  random.seed(options.seed)
  started = time.monotonic()
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compilation_cache")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    write_images(folder / "images" / "my_images")
    data = [f"--config.data.manual_dir={folder}/images", f"--config.data.data_dir={folder}/data"]
    arguments = ["--config=configs/custom.py:small", *data, *SMALL_NETWORK, *_SCHEDULE]
    (folder / "cluster").mkdir()
    with SlurmCluster(folder / "cluster") as cluster:
      campaign = Campaign(cluster, arguments, folder)
      for number in range(options.times):
        for interruption in options.only or INTERRUPTIONS:
          campaign.interrupt(interruption, number)
  for (interruption, end), count in sorted(campaign.ends.items()):
    print(f"{count:4} {interruption}: {end}")
  print(f"in {(time.monotonic() - started) / 60:.0f} minutes")
  return 0 if {end for _, end in campaign.ends} <= {"equal"} else 1


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
