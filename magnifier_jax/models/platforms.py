"""The one switch between library operations and the forms that XLA's CPU compiler needs."""

from collections.abc import Callable
from typing import Any

from jax.lax import platform_dependent


def cpu_or_default(*arrays: Any, cpu: Callable, default: Callable) -> Any:
  """Computes `cpu(*arrays)` on CPUs, `default(*arrays)` on every other platform.

  The two must give the same to rounding. A program that is lowered for one platform has nothing of
  the other's in it; one for several platforms has a conditional.

  Args:
    *arrays: trees of arrays, the arguments of both.
    cpu: the form in `magnifier_jax.models.cpu`.
    default: the same mathematics in library operations.

  Returns:
    What the chosen function returns.
  """
  return platform_dependent(*arrays, cpu=cpu, default=default)
