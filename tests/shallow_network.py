"""A network that compiles quickly, for tests of what surrounds it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from magnifier_jax.models import resnet


@contextmanager
def shallow_resnet18() -> Iterator[None]:
  """One block a stage: compiling and tracing is what short runs spend their time on."""
  shallow = resnet.Architecture(resnet.BasicBlock, (1, 1, 1, 1))
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(resnet.ARCHITECTURES, "resnet18", shallow)
    yield
