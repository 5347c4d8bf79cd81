"""A disk that is full: telling it from other errors, whatever library it comes through."""

import errno
import os

from magnifier_jax.errors import UserError

# No space left, a quota that is used up, or a limit on the size of a file.
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(UserError):
  """Something could not be written for want of space."""


def full_disk_reason(error: BaseException | None) -> str | None:
  """Returns the system's words for a full disk behind an error; None when it is something else.

  TensorStore and Orbax keep those words, but neither the number nor the type.
  """
  while error is not None:
    if isinstance(error, OSError) and error.errno in _NUMBERS:
      return os.strerror(error.errno)
    for number in _NUMBERS:
      if os.strerror(number) in str(error):
        return os.strerror(number)
    error = error.__cause__ or error.__context__
  return None
