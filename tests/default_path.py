"""What accelerators compute, on a CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from magnifier_jax.models import platforms


@contextmanager
def default_path() -> Iterator[None]:
  """Networks that are traced inside have no CPU forms."""

  def always_default(*arrays: Any, cpu: Callable, default: Callable) -> Any:
    return default(*arrays)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(platforms, "platform_dependent", always_default)
    yield
