"""A network that compiles quickly, for tests of what surrounds it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from magnifier_jax.models import resnet


@contextmanager
def shallow_resnet18() -> Iterator[None]:
  """One block a stage: compiling and tracing is what short runs spend their time on."""
  with _resnet18(resnet.Architecture(resnet.BasicBlock, (1, 1, 1, 1))):
    yield


@contextmanager
def narrow_resnet18() -> Iterator[None]:
  """One block a stage, of 2, 4, 8 and 16 channels: its checkpoint is small enough to be stored."""
  with _resnet18(resnet.Architecture(resnet.BasicBlock, (1, 1, 1, 1), width=2)):
    yield


@contextmanager
def _resnet18(architecture: resnet.Architecture) -> Iterator[None]:
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(resnet.ARCHITECTURES, "resnet18", architecture)
    yield
