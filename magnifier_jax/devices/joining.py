"""Joining the other processes of a run: said at once, and given up with the reason."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from magnifier_jax.devices import failure
from magnifier_jax.devices.processes import Launch, LaunchError, Membership, membership_of

TIMEOUT_S = 300
_SILENCE_S = 10  # before the first word about whom a process waits for; doubled after each
# JAX ends the process with a stack trace when its own time is over, so that must not come first.
_JAX_TIMEOUT_MARGIN_S = 3600


def join(launch: Launch, timeout_s: int = TIMEOUT_S) -> None:
  """Joins the other processes of the run, if there are any; before JAX touches a device.

  Process 0 says where; the others speak up when they have to wait.

  Args:
    launch: the command line's flags.
    timeout_s: seconds to wait for all processes.

  Raises:
    LaunchError: when flags and environment are incomplete or contradict each other, or not all
      processes have come in time; it names the address.
  """
  membership = membership_of(launch, os.environ)
  if membership is None:
    return
  membership = _with_known_host(membership, os.environ)
  if not membership.process_id:
    print(f"joining {_processes(membership)}", flush=True)
  wait = _Wait(timeout_s)
  # Here and not in JAX, which waits longer and longer between two tries to reach process 0, and
  # crashes where its own port is taken.
  while obstacle := _obstacle(membership):
    wait.go_on(lambda: obstacle)
    time.sleep(0.2)
  connection = _Connection(membership, timeout_s)
  while not connection.is_made(within_s=0.2):
    wait.go_on(lambda: _missing(membership))
  failure.watch()


def connect_devices() -> None:
  """Checks the devices of several processes, and connects them where they are CPUs.

  Otherwise the first exchange of values would connect them, and Gloo, which nothing but CPUs uses,
  would print a line for each. All processes must call it, after `join` and once the compilation
  cache is set.

  Raises:
    LaunchError: when one process has more devices than another.
  """
  import jax

  if jax.process_count() == 1:
    return
  counts = Counter(device.process_index for device in jax.devices())
  if len(set(counts.values())) > 1:
    told = ", ".join(f"process {process} has {count}" for process, count in sorted(counts.items()))
    raise LaunchError(f"every process of a run needs as many devices as the others; {told}")
  if jax.default_backend() == "cpu":
    _connect_cpus()


def _connect_cpus() -> None:
  import jax
  import numpy as np
  from jax.experimental import multihost_utils

  from magnifier_jax.devices import mesh as mesh_lib

  mesh = mesh_lib.data_mesh()
  ones = mesh_lib.to_global(np.ones(jax.local_device_count(), np.int32), mesh)
  add = jax.jit(lambda x: x.sum(), out_shardings=mesh_lib.replicated(mesh))
  with _without_lines_of(b"[Gloo] "):
    # All devices, as in a training step; and one device of each process, as in Orbax.
    jax.block_until_ready(add(ones))
    multihost_utils.sync_global_devices("connected")


class _Wait:
  """A wait for other processes that does not pass in silence, and ends."""

  def __init__(self, timeout_s: int):
    self._timeout_s = timeout_s
    self._start = time.monotonic()
    self._next_word_s = _SILENCE_S

  def go_on(self, reason: Callable[[], str]) -> None:
    """Says now and then what is missing.

    Raises:
      LaunchError: when the time is over.
    """
    passed = time.monotonic() - self._start
    if passed > self._timeout_s:
      raise LaunchError(
        f"{reason()}; gave up after {self._timeout_s} s (--initialization_timeout). Do all "
        "processes run, with the same address and number of processes, and is the port open "
        "between their machines?"
      )
    if passed > self._next_word_s:
      self._next_word_s *= 2
      left = self._timeout_s - passed
      print(f"waiting, {left:.0f} s at most: {reason()}", file=sys.stderr, flush=True)


class _Connection:
  """`jax.distributed.initialize` in a thread, because JAX waits where no signal interrupts it."""

  def __init__(self, membership: Membership, timeout_s: int):
    import jax  # here, so that wrong flags are reported before this second

    def connect() -> None:
      try:
        jax.distributed.initialize(
          **membership._asdict(), initialization_timeout=timeout_s + _JAX_TIMEOUT_MARGIN_S
        )
      except Exception as error:
        self._error = error

    self._membership = membership
    self._error: Exception | None = None
    self._thread = threading.Thread(target=connect, daemon=True)
    self._thread.start()

  def is_made(self, within_s: float) -> bool:
    """Waits a moment; returns whether all processes are connected.

    Raises:
      LaunchError: when JAX says that it cannot be.
    """
    self._thread.join(within_s)
    if isinstance(self._error, (RuntimeError, ValueError, OSError)):
      reason = " ".join(str(self._error).split())
      raise LaunchError(f"joining {_processes(self._membership)}: {reason}") from self._error
    if self._error is not None:
      raise self._error
    return not self._thread.is_alive()


def _processes(membership: Membership) -> str:
  if membership.coordinator_address is None:
    return "the processes of this TPU slice"
  return f"{membership.num_processes} processes at {membership.coordinator_address}"


def _obstacle(membership: Membership) -> str | None:
  """Returns what keeps this process from joining now."""
  address = membership.coordinator_address
  if address is None:
    return None
  if membership.process_id == 0:
    _, port = _split(os.environ.get("JAX_COORDINATOR_BIND_ADDRESS") or address)
    taken = f"process 0: port {port} of this machine is in use by another program"
    return taken if _is_in_use(port) else None
  problem = _problem_with(address)
  return problem and _cannot_reach(membership, problem)


def _missing(membership: Membership) -> str:
  """Returns what this process waits for once it has begun to join."""
  address = membership.coordinator_address
  if address and (problem := _problem_with(address)):
    return _cannot_reach(membership, problem)
  return f"not all of {_processes(membership)} have come"


def _cannot_reach(membership: Membership, problem: str) -> str:
  target = "itself" if membership.process_id == 0 else "process 0"
  address = membership.coordinator_address
  return f"process {membership.process_id} cannot reach {target} at {address} ({problem})"


def _is_in_use(port: int) -> bool:
  try:
    socket.create_server(("", port)).close()
  except OSError:
    return True
  return False


def _problem_with(address: str) -> str | None:
  """Returns why nothing answers at HOST:PORT, or None when something does."""
  host, port = _split(address)
  try:
    socket.create_connection((host, port), timeout=5).close()
  except OSError as error:
    return f"{host}: {error}" if isinstance(error, socket.gaierror) else str(error)
  return None


def _split(address: str) -> tuple[str, int]:
  host, _, port = address.rpartition(":")
  return host.strip("[]"), int(port)


def _with_known_host(membership: Membership, environment: Mapping[str, str]) -> Membership:
  """Puts SLURM's own address of a node in the place of a name that this machine cannot resolve."""
  if membership.coordinator_address is None or "SLURM_JOB_ID" not in environment:
    return membership
  host, port = _split(membership.coordinator_address)
  if _resolves(host):
    return membership
  address = _slurm_address(host)
  if address is None:
    return membership
  host = f"[{address}]" if ":" in address else address
  return membership._replace(coordinator_address=f"{host}:{port}")


def _resolves(host: str) -> bool:
  try:
    socket.getaddrinfo(host, None)
  except OSError:
    return False
  return True


def _slurm_address(node: str, run: Callable[..., str] = subprocess.check_output) -> str | None:
  """Returns what SLURM's configuration says about where a node is, or None."""
  command = ["scontrol", "show", "node", node, "--oneliner"]
  try:
    shown = run(command, text=True, stderr=subprocess.DEVNULL, timeout=30)
  except (OSError, subprocess.SubprocessError):
    return None
  found = re.search(r"\bNodeAddr=(\S+)", shown)
  return found[1] if found else None


@contextmanager
def _without_lines_of(prefix: bytes) -> Iterator[None]:
  """Holds back standard output, that of C++ too, and drops the lines that begin with a prefix."""
  sys.stdout.flush()
  with tempfile.TemporaryFile() as said:
    output = os.dup(1)
    os.dup2(said.fileno(), 1)
    try:
      yield
    finally:
      sys.stdout.flush()
      os.dup2(output, 1)
      os.close(output)
      said.seek(0)
      for line in said:
        if not line.startswith(prefix):
          os.write(1, line)
