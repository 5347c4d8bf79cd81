"""A SLURM cluster of two nodes on this machine, in a folder, for as long as it is wanted.

Everything is SLURM's own, as Debian's packages slurmctld, slurmd, slurm-client and munge have it;
only the nodes are two daemons beside each other. Their names, n1 and n2, are in no hosts file.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
NODES = ("n1", "n2")
_UNFINISHED = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED")
_CONFIGURATION = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that goes back into the queue starts again when its credentials have expired.
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait=15
SlurmdTimeout=15
ReturnToService=2
MinJobAge=3600
# The nodes have more cores than the machine.
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first_port} CPUs=16
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second_port} CPUs=16
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
  """Returns which of SLURM's programs are not installed."""
  return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class SlurmCluster:
  """A running cluster; to be used in a `with` statement, which takes everything down again.

  Args:
    folder: absolute; gets the configuration, the state and the daemons' logs.
  """

  def __init__(self, folder: Path):
    self._folder = folder
    self._daemons: dict[str, subprocess.Popen] = {}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    self.environment = kept | {"PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}

  def __enter__(self) -> "SlurmCluster":
    try:
      self._start()
    except BaseException:
      self.__exit__()
      raise
    return self

  def __exit__(self, *_) -> None:
    """Ends all jobs, the daemons and whatever they have started."""
    with contextlib.suppress(subprocess.SubprocessError):
      self.run("scancel", "--signal=KILL", "--user", getpass.getuser(), timeout=10)
      self.run("scancel", "--user", getpass.getuser(), timeout=10)
    for name in reversed(list(self._daemons)):
      self._stop(name)
    for process in self._processes({"SLURM_CONF": self.environment["SLURM_CONF"]}):
      _kill(process)

  def run(self, *command: str | Path, timeout: float = 60) -> str:
    """Returns what one of SLURM's commands prints.

    Raises:
      RuntimeError: when it fails.
    """
    result = subprocess.run(
      command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    if result.returncode:
      raise RuntimeError(f"{command}: exit code {result.returncode}\n{result.stderr}")
    return result.stdout

  def submit(
    self,
    command: Sequence[str | Path],
    log: Path,
    folder: Path,
    variables: Mapping[str, str] | None = None,
  ) -> "Job":
    """Hands a job to `sbatch`.

    Args:
      command: options of sbatch, a batch script, and its arguments.
      log: gets the job's output.
      folder: in which it runs.
      variables: added to its environment.
    """
    result = subprocess.run(
      ["sbatch", "--parsable", f"--output={log}", *command],
      cwd=folder,
      env=self.environment | (variables or {}),
      capture_output=True,
      text=True,
      check=True,
    )
    return Job(self, result.stdout.strip(), log)

  def node_processes(self, node: str, job: str, step: str | None = None) -> list[int]:
    """Returns the processes of a job on a node, without SLURM's own.

    Args:
      node: of NODES.
      job: its id.
      step: only those of this step; the training is step 0, and the batch script none.
    """
    wanted = {"SLURMD_NODENAME": node, "SLURM_JOB_ID": job}
    return self._processes(wanted | ({} if step is None else {"SLURM_STEP_ID": step}))

  def step_daemon(self, task: int) -> int:
    """Returns the slurmstepd that has started a task."""
    return int(Path(f"/proc/{task}/stat").read_text().rsplit(")", 1)[1].split()[1])

  def lose_node(self, node: str, job: str) -> None:
    """Kills the node's daemon and the job's processes on it, at once, as a power failure would."""
    tasks = self.node_processes(node, job)
    daemons = {self.step_daemon(task) for task in self.node_processes(node, job, "0")}
    self._daemons[node].kill()
    for process in [*daemons, *tasks]:
      _kill(process)
    self._daemons.pop(node).wait()

  def start_node(self, node: str) -> None:
    """Starts the daemon of a node."""
    self._start_daemon(node, "slurmd", "-D", "-N", node)

  def wait_until_down(self, node: str, timeout_s: float = 120) -> None:
    """Returns when SLURM has noticed that a node is lost.

    Raises:
      RuntimeError: after the time, with what the daemons say.
    """
    position = NODES.index(node)
    self._wait_for_states(lambda states: "down" in "".join(states[position:][:1]), timeout_s)

  def wait_until_idle(self, timeout_s: float = 60) -> None:
    """Returns when no node has work and all are up.

    Raises:
      RuntimeError: after the time, with what the daemons say.
    """
    self._wait_for_states(lambda states: states == ["idle"] * len(NODES), timeout_s)

  def _wait_for_states(self, condition: Callable[[list[str]], bool], timeout_s: float) -> None:
    try:
      _wait_until(lambda: condition(self._node_states()), timeout_s)
    except TimeoutError:
      raise RuntimeError(f"the nodes are {self._node_states()}\n{self._logs()}") from None

  def _start(self) -> None:
    for name in ("state", *(f"spool-{node}" for node in NODES)):
      (self._folder / name).mkdir()
    key = self._folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    controller_port, first_port, second_port = _free_ports(3)
    (self._folder / "slurm.conf").write_text(
      _CONFIGURATION.format(
        host=socket.gethostname().split(".")[0],
        user=getpass.getuser(),
        folder=self._folder,
        controller_port=controller_port,
        first_port=first_port,
        second_port=second_port,
      )
    )
    files = {"key": "key", "socket": "sock", "pid": "pid", "log": "munged.log", "seed": "seed"}
    paths = {kind: self._folder / f"munge.{ending}" for kind, ending in files.items()}
    self._start_daemon(
      "munged",
      "munged",
      "--foreground",
      "--force",  # the folder may lie in one that others can write, as /tmp is
      f"--socket={paths['socket']}",
      *(f"--{kind}-file={paths[kind]}" for kind in ("key", "pid", "log", "seed")),
    )
    _wait_until(paths["socket"].exists, 10)
    self._start_daemon("slurmctld", "slurmctld", "-D")
    for node in NODES:
      self.start_node(node)
    self.wait_until_idle()

  def _start_daemon(self, name: str, *command: str) -> None:
    with (self._folder / f"{name}.out").open("a") as output:
      self._daemons[name] = subprocess.Popen(
        command,
        cwd=self._folder,
        env=self.environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
      )

  def _stop(self, name: str) -> None:
    daemon = self._daemons.pop(name)
    daemon.terminate()
    try:
      daemon.wait(5)
    except subprocess.TimeoutExpired:
      daemon.kill()
      daemon.wait()

  def _node_states(self) -> list[str]:
    try:
      return self.run("sinfo", "--noheader", "--Node", "--format=%T").split()
    except RuntimeError:  # the controller does not answer yet
      return []

  def _logs(self) -> str:
    return "\n".join(path.read_text() for path in sorted(self._folder.glob("*.out")))

  def _processes(self, wanted: Mapping[str, str]) -> list[int]:
    """Returns the processes in whose environment there are these variables."""
    return [
      int(folder.name)
      for folder in Path("/proc").glob("[0-9]*")
      if int(folder.name) != os.getpid() and wanted.items() <= _environment(folder).items()
    ]


class Job:
  """A job in the queue, running, or ended.

  Args:
    cluster: that has it.
    number: SLURM's, as text.
    log: its output.
  """

  def __init__(self, cluster: SlurmCluster, number: str, log: Path):
    self._cluster = cluster
    self.number = number
    self.log = log

  def lines(self) -> list[str]:
    """Returns the output so far."""
    return self.log.read_text().splitlines() if self.log.exists() else []

  def field(self, name: str) -> str:
    """Returns a field of `scontrol show job`."""
    shown = self._cluster.run("scontrol", "show", "job", "--oneliner", self.number)
    return dict(part.split("=", 1) for part in shown.split() if "=" in part)[name]

  def state(self) -> str:
    """Returns SLURM's word: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, …"""
    return self.field("JobState")

  def wait_for(self, text: str, times: int = 1, timeout_s: float = 300) -> None:
    """Returns when so many lines of the output contain a text.

    Raises:
      RuntimeError: when the job ends before, or takes too long; with its output.
    """

    def is_there() -> bool:
      if sum(text in line for line in self.lines()) >= times:
        return True
      if self.has_ended():
        raise RuntimeError(f"{text!r} did not come; the job is {self.state()}\n{self._output()}")
      return False

    self._wait(is_there, timeout_s)

  def wait(self, timeout_s: float = 300) -> str:
    """Returns the state in which the job has ended."""
    self._wait(self.has_ended, timeout_s)
    return self.state()

  def has_ended(self) -> bool:
    """Whether it will not run again."""
    if self.state() in _UNFINISHED:
      return False
    time.sleep(1)  # a job on its way back into the queue looks cancelled for a moment
    return self.state() not in _UNFINISHED

  def _wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
    try:
      _wait_until(condition, timeout_s)
    except TimeoutError:
      raise RuntimeError(f"the job is {self.state()}\n{self._output()}") from None

  def _output(self) -> str:
    return "\n".join(self.lines())


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
  deadline = time.monotonic() + timeout_s
  while not condition():
    if time.monotonic() > deadline:
      raise TimeoutError
    time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in sockets:
      one.bind(("127.0.0.1", 0))
    return [one.getsockname()[1] for one in sockets]


def _environment(folder: Path) -> dict[str, str]:
  """Returns the variables of a process, by its folder in /proc; none of somebody else's."""
  try:
    entries = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
  except OSError:
    return {}
  return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _kill(process: int) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.kill(process, signal.SIGKILL)
