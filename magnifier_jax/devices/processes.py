"""The processes of one run: how many there are, which this is, and where process 0 is."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from magnifier_jax.errors import UserError

_FIRST_PORT = 61440  # above those that Linux gives to programs that ask for any
CLUSTERS = ("auto", "none", "slurm", "openmpi", "tpu")


class LaunchError(UserError):
  """The processes of a run cannot be told from what flags and environment say."""


class Launch(NamedTuple):
  """What the command line says about the processes of the run; None leaves it to the environment.

  `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` say the same as the flags.
  """

  cluster: str = "auto"  # of CLUSTERS; 'none' disregards what a scheduler has set
  coordinator: str | None = None  # HOST:PORT of process 0
  num_processes: int | None = None
  process_id: int | None = None  # from 0


class Membership(NamedTuple):
  """Arguments of `jax.distributed.initialize`; None is for JAX to find out, which it does on TPUs.

  Of SLURM and Open MPI everything is read here: an address that only JAX knows could not be named
  to the user who waits for it.
  """

  coordinator_address: str | None
  num_processes: int | None
  process_id: int | None
  local_device_ids: list[int] | None
  cluster_detection_method: str


class _Tasks(NamedTuple):
  """What a scheduler says about the processes that it started."""

  scheduler: str
  num_processes: int
  process_id: int
  local_count: int | None  # processes on this machine
  local_id: int | None
  coordinator: str | None  # HOST:PORT of process 0, where the scheduler tells


def membership_of(launch: Launch, environment: Mapping[str, str]) -> Membership | None:
  """Returns what to call `jax.distributed.initialize` with, or None for a run of one process.

  Explicit values come first; a scheduler's environment fills in what they leave open.

  Raises:
    LaunchError: when they are incomplete or contradict each other.
  """
  explicit = _explicit(launch, environment)
  given = any(value is not None for value in explicit[1:])
  if _on_tpu(launch.cluster, environment):
    return _tpu_membership(given, environment)
  tasks = _scheduled_tasks(launch.cluster, environment)
  if tasks is None and not given:
    return None
  if tasks is not None:
    explicit = _complete(explicit, tasks)
  _check(explicit)
  return Membership(
    explicit.coordinator,
    explicit.num_processes,
    explicit.process_id,
    _own_gpus(tasks, environment) if tasks else None,
    "deactivate",
  )


def _explicit(launch: Launch, environment: Mapping[str, str]) -> Launch:
  """Merges the flags with the variables that say the same."""
  if launch.cluster not in CLUSTERS:
    raise LaunchError(f"--cluster: must be one of {', '.join(CLUSTERS)}; got {launch.cluster!r}")
  variables = {
    "coordinator": environment.get("JAX_COORDINATOR_ADDRESS") or None,
    "num_processes": _integer(environment, "JAX_NUM_PROCESSES"),
    "process_id": _integer(environment, "JAX_PROCESS_ID"),
  }
  for name, value in variables.items():
    flag = getattr(launch, name)
    if None not in (flag, value) and flag != value:
      raise LaunchError(
        f"--{name}: the flag says {flag}, the environment's JAX_… variable says {value}; "
        "leave one out"
      )
    launch = launch._replace(**{name: value if flag is None else flag})
  return launch


def _on_tpu(cluster: str, environment: Mapping[str, str]) -> bool:
  if cluster != "auto":
    return cluster == "tpu"
  return "MEGASCALE_COORDINATOR_ADDRESS" in environment or len(_tpu_hosts(environment)) > 1


def _tpu_hosts(environment: Mapping[str, str]) -> list[str]:
  """Returns the machines of the slice, where the environment names them, as GKE's does."""
  hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
  return hosts.split(",") if hosts else []


def _tpu_membership(given: bool, environment: Mapping[str, str]) -> Membership:
  """Returns the membership of a TPU slice, which knows its own processes."""
  if given:
    raise LaunchError(
      "--coordinator, --num_processes and --process_id: a TPU slice knows these itself; leave "
      "them out (and the JAX_… variables), or add --cluster=none"
    )
  # A TPU VM keeps the list of machines in its metadata, GKE in the environment.
  return Membership(None, None, None, None, "gketpu" if _tpu_hosts(environment) else "gcetpu")


def _scheduled_tasks(cluster: str, environment: Mapping[str, str]) -> _Tasks | None:
  """Returns what SLURM or Open MPI started; None where that is one process, or nothing."""
  # mpirun inside a SLURM job sees the variables of both; the inner launcher is the one that counts.
  for name, read in (("openmpi", _openmpi_tasks), ("slurm", _slurm_tasks)):
    if cluster in ("auto", name):
      tasks = read(environment)
      if tasks is not None and tasks.num_processes > 1:
        return tasks
      if tasks is None and cluster == name:
        raise LaunchError(f"--cluster={name}: this process was not started by {_LAUNCHER[name]}")
  return None


_LAUNCHER = {"slurm": "srun", "openmpi": "Open MPI's mpirun"}


def _slurm_tasks(environment: Mapping[str, str]) -> _Tasks | None:
  # Only srun sets the step's nodes: the batch script itself is one process, not a task.
  if "SLURM_STEP_NODELIST" not in environment:
    return None
  job = _required(environment, "SLURM_JOB_ID")
  per_node = _per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
  node = _integer(environment, "SLURM_NODEID")
  return _Tasks(
    "SLURM",
    _required(environment, "SLURM_NTASKS"),
    _required(environment, "SLURM_PROCID"),
    per_node[node] if node is not None and node < len(per_node) else None,
    _integer(environment, "SLURM_LOCALID"),
    f"{_first_node(environment['SLURM_STEP_NODELIST'])}:{_port(job, environment)}",
  )


def _per_node(counts: str) -> list[int]:
  """Expands SLURM's '2(x3),1' to [2, 2, 2, 1]."""
  found = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
  return [int(count) for count, times in found for _ in range(int(times or 1))]


def _first_node(nodes: str) -> str:
  """Returns 'rack2n07' of SLURM's 'rack[2-3]n[07-09,12],login1'."""
  first = re.match(r"(?:[^,\[]|\[[^]]*\])*", nodes)[0]
  return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", first)


def _port(job: int, environment: Mapping[str, str]) -> int:
  """Returns a port that is the job's own, or `JAX_COORDINATOR_PORT`."""
  given = _integer(environment, "JAX_COORDINATOR_PORT")
  return given or _FIRST_PORT + job % (2**16 - _FIRST_PORT)


def _openmpi_tasks(environment: Mapping[str, str]) -> _Tasks | None:
  if "OMPI_COMM_WORLD_SIZE" not in environment:
    return None
  return _Tasks(
    "Open MPI",
    _required(environment, "OMPI_COMM_WORLD_SIZE"),
    _required(environment, "OMPI_COMM_WORLD_RANK"),
    _integer(environment, "OMPI_COMM_WORLD_LOCAL_SIZE"),
    _integer(environment, "OMPI_COMM_WORLD_LOCAL_RANK"),
    _mpirun_address(environment),
  )


def _mpirun_address(environment: Mapping[str, str]) -> str | None:
  """Returns HOST:PORT on the machine where mpirun runs; None since Open MPI 5 hides it.

  Open MPI 4 writes '1531576320.0;tcp://10.96.0.1,10.148.0.1:34911' or '…;tcp6://[fe80::1]:43370',
  where the job's number is in the upper bits of the first one.
  """
  uri = environment.get("OMPI_MCA_orte_hnp_uri", "")
  found = re.match(r"(\d+)\..*?;tcp(?:://([^,:]+)|6://\[([^],]+))", uri)
  if found is None:
    return None
  host = found[2] or f"[{found[3]}]"
  return f"{host}:{_port(int(found[1]) >> 12, environment)}"


def _complete(explicit: Launch, tasks: _Tasks) -> Launch:
  """Fills what the flags leave open with what the scheduler says."""
  for name in ("num_processes", "process_id"):
    flag, scheduled = getattr(explicit, name), getattr(tasks, name)
    if flag is not None and flag != scheduled:
      raise LaunchError(
        f"--{name}: {flag} is given, but {tasks.scheduler} says {scheduled}; leave the flag (or "
        "JAX_… variable) out, or add --cluster=none"
      )
  return Launch(
    explicit.cluster,
    explicit.coordinator or tasks.coordinator,
    tasks.num_processes,
    tasks.process_id,
  )


def _check(launch: Launch) -> None:
  """Raises `LaunchError` unless everything is there and in range."""
  needed = ("coordinator", "num_processes", "process_id")
  missing = [f"--{name}" for name in needed if getattr(launch, name) is None]
  if missing:
    raise LaunchError(
      f"{', '.join(missing)}: missing; a run of several processes needs --coordinator=HOST:PORT, "
      "--num_processes=N and --process_id=0…N−1, or their JAX_… variables (launch/README.md)"
    )
  if launch.num_processes < 1:
    raise LaunchError(f"--num_processes: must be at least 1, got {launch.num_processes}")
  if not 0 <= launch.process_id < launch.num_processes:
    raise LaunchError(
      f"--process_id: must be from 0 to {launch.num_processes - 1}, got {launch.process_id}"
    )
  if launch.coordinator is not None and not _is_host_and_port(launch.coordinator):
    raise LaunchError(f"--coordinator: must be HOST:PORT of process 0, got {launch.coordinator!r}")


def _is_host_and_port(address: str) -> bool:
  host, _, port = address.rpartition(":")
  return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


def _own_gpus(tasks: _Tasks, environment: Mapping[str, str]) -> list[int] | None:
  """Returns this process's share of the GPUs it can see; None where there are none.

  JAX's own rule is one GPU a process, which leaves the others of a machine idle without a word,
  and fails where the scheduler has bound each process to its own.
  """
  visible = _num_visible_gpus(environment)
  if not visible or tasks.local_count is None or tasks.local_id is None:
    return None
  # With --gpus-per-task, SLURM shows each task its own GPUs only.
  bound = "SLURM_GPUS_PER_TASK" in environment or visible < tasks.local_count
  if bound:
    return list(range(visible))
  if visible % tasks.local_count:
    raise LaunchError(
      f"{tasks.local_count} processes cannot share the {visible} GPUs of this machine evenly; "
      "start one process for each GPU, or one for all of them"
    )
  share = visible // tasks.local_count
  return list(range(tasks.local_id * share, (tasks.local_id + 1) * share))


def _num_visible_gpus(environment: Mapping[str, str]) -> int:
  listed = environment.get("CUDA_VISIBLE_DEVICES")
  if listed is not None:
    return len([device for device in listed.split(",") if device.strip()])
  return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def _required(environment: Mapping[str, str], name: str) -> int:
  value = _integer(environment, name)
  if value is None:
    raise LaunchError(f"{name}: the scheduler's environment lacks it; start through srun or mpirun")
  return value


def _integer(environment: Mapping[str, str], name: str) -> int | None:
  text = environment.get(name) or None
  if text is not None and not text.isdecimal():
    raise LaunchError(f"{name}: the environment's value must be a whole number, got {text!r}")
  return None if text is None else int(text)
