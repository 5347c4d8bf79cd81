"""A disk that is full, for one block: the system lets no file of this process grow."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full_disk(left_bytes: int = 0) -> Iterator[None]:
  """Makes every write beyond `left_bytes` of a file fail, whoever runs the test.

  What is printed must not go to a file meanwhile: tests take `capsys`.
  """
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (left_bytes, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
