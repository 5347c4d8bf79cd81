"""The network of `stored_run.tar.xz`, whose config calls it a ResNet-18."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from magnifier_jax.models import resnet


@contextmanager
def stored_architecture() -> Iterator[None]:
  """One block a stage, of 2, 4, 8 and 16 channels: its checkpoint is small enough to be stored."""
  narrow = resnet.Architecture(resnet.BasicBlock, (1, 1, 1, 1), width=2)
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(resnet.ARCHITECTURES, "resnet18", narrow)
    yield
