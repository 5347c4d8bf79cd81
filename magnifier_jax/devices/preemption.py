"""SIGTERM, by which schedulers announce that they will take the machine away: save, then leave.

While something has been trained that no checkpoint holds, SIGTERM is only noted, and the training
loop asks for it. At all other times, while starting, compiling or evaluating, the process leaves
at once. A second SIGTERM always ends it at once.

`jax.distributed` has a service for the same purpose, but it takes every SIGTERM for itself from the
start of the process on, and looks for one only once a second.
"""

import os
import signal
import threading
from collections.abc import Callable

EXIT_CODE = 128 + signal.SIGTERM

_SAVED = b"SIGTERM: nothing that was trained is lost; the same command goes on\n"
_UNSAVED = b"second SIGTERM: left without saving; the same command goes on from a checkpoint\n"


def _nothing() -> None:
  """Finishes what has been finished."""


class Preempted(Exception):
  """The run has saved its state and ends; the message is the whole story."""


class Preemption:
  """Notes SIGTERM and makes all processes of a run agree on when to save.

  Attributes:
    agreed: whether the processes agreed to save and leave at the last `poll`.
  """

  def __init__(self):
    self.agreed = False
    self._received = False
    self._unsaved = False
    self._finish_saving = _nothing
    self._lock = threading.Lock()
    self._sender: int | None = None
    self._any_process = None  # jitted, [devices] int32 → scalar
    self._in_flight = None

  def listen(self) -> None:
    """Takes over SIGTERM; from the main thread.

    To be called again after whatever else installs a handler, such as `jax.distributed`.
    """
    if self._sender is None:
      receiver, self._sender = os.pipe()
      os.set_blocking(self._sender, False)
      # Python runs handlers in the main thread, which may be compiling for minutes; the byte that
      # it sends through this pipe wakes a thread at once.
      signal.set_wakeup_fd(self._sender)
      threading.Thread(target=self._watch, args=(receiver,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: None)

  def request(self) -> None:
    """Does what SIGTERM does."""
    with self._lock:
      if self._received:
        _leave(_UNSAVED if self._unsaved else _SAVED)
      self._received = True
      if not self._unsaved:
        self._leave_when_saved()

  @property
  def received(self) -> bool:
    """Whether SIGTERM has come."""
    return self._received

  def hold(self) -> None:
    """From now on there is something to save: SIGTERM waits for `poll`."""
    with self._lock:
      self._unsaved = True

  def release(self, finish_saving: Callable[[], None] = _nothing) -> None:
    """From now on everything is saved, or on its way: SIGTERM ends the process.

    So does one that came before, unless the processes have agreed on it: then the loop leaves.

    Args:
      finish_saving: returns when what is on its way has arrived; by default nothing is.
    """
    with self._lock:
      self._unsaved = False
      self._finish_saving = finish_saving
      if self._received and not self.agreed:
        self._leave_when_saved()

  def poll(self) -> bool:
    """Returns whether to save and leave now, the same on all processes.

    All of them must call it equally often. Several processes learn of a signal one call late, so
    that asking does not hold up the devices.
    """
    import jax  # `listen` must not wait for it: it takes a second

    if jax.process_count() == 1:
      self.agreed = self._received
    else:
      before, self._in_flight = self._in_flight, self._ask_all_processes()
      self.agreed = before is not None and bool(before)
    return self.agreed

  def _ask_all_processes(self):
    import jax
    import numpy as np

    from magnifier_jax.devices import mesh as mesh_lib

    mesh = mesh_lib.data_mesh()
    if self._any_process is None:
      on_all = mesh_lib.replicated(mesh)
      self._any_process = jax.jit(lambda received: received.max(), out_shardings=on_all)
    received = np.full(jax.local_device_count(), self._received, np.int32)
    return self._any_process(mesh_lib.to_global(received, mesh))

  def _watch(self, receiver: int) -> None:
    while number := os.read(receiver, 1):
      if number[0] == signal.SIGTERM:
        self.request()

  def _leave_when_saved(self) -> None:
    """Leaves from a thread of its own, so that a second SIGTERM is still seen."""

    def leave() -> None:
      self._finish_saving()
      _leave(_SAVED)

    threading.Thread(target=leave, daemon=True).start()


def _leave(message: bytes) -> None:
  """Ends the process without waiting for anything, the main thread included."""
  os.write(2, message)
  os._exit(EXIT_CODE)
