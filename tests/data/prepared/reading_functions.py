"""What other processes are asked to do in the tests of them."""

import os
import signal

from magnifier_jax.data.records import SourceError


def add(first: int, second: int) -> tuple[int, int]:
  """Returns the sum, and which process made it."""
  print("noise among the answers")
  return first + second, os.getpid()


def refuse(first: str, second: str) -> None:
  """Raises what reading a damaged file raises."""
  raise SourceError(f"{first}/{second}: damaged")


def die(first: None, second: None) -> None:
  """Ends its process as the kernel does when memory runs out."""
  os.kill(os.getpid(), signal.SIGKILL)
