"""A disk that is full: telling it from other errors, whatever library it comes through."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magnifier_jax.errors import UserError
from magnifier_jax.files.whole_file import FULL_DISK, MORE_SPACE

_ORBAX_THREAD = "_SignalingThread.run() raised an exception"


class DiskFullError(UserError):
  """Something could not be written for want of space."""


@contextlib.contextmanager
def full_disk_named(folder: Path, otherwise: str) -> Iterator[None]:
  """Makes one line of a full disk that ends the block, in whatever library it was noticed.

  Args:
    folder: where the block writes.
    otherwise: what is well in spite of it.

  Raises:
    DiskFullError: names the folder, the reason and the mend.
  """
  try:
    with _without_what_libraries_say():
      yield
  except UserError:
    raise
  except Exception as error:
    reason = full_disk_reason(error)
    if reason is None:
      raise
    raise DiskFullError(f"{folder}: {reason}; {MORE_SPACE}. {otherwise}") from error


@contextlib.contextmanager
def _without_what_libraries_say() -> Iterator[None]:
  """Leaves out what Orbax's logger and TensorStore's threads print of a full disk: pages of it."""
  logger, print_error = logging.getLogger("absl"), sys.unraisablehook

  def print_other_errors(unraisable: Any) -> None:
    # TensorStore's threads report to the event loop of a save that has failed meanwhile.
    error = unraisable.exc_value
    if full_disk_reason(error) is None and str(error) != "Event loop is closed":
      print_error(unraisable)

  logger.addFilter(_is_about_something_else)
  sys.unraisablehook = print_other_errors
  try:
    yield
  finally:
    sys.unraisablehook = print_error
    logger.removeFilter(_is_about_something_else)


def _is_about_something_else(record: logging.LogRecord) -> bool:
  error = record.exc_info[1] if record.exc_info else None
  words = record.getMessage()
  if _ORBAX_THREAD in words:  # it raises that error where it is waited for
    return False
  return full_disk_reason(error) is None and not any(os.strerror(n) in words for n in FULL_DISK)


def full_disk_reason(error: BaseException | None) -> str | None:
  """Returns the system's words for a full disk behind an error; None when it is something else.

  TensorStore and Orbax keep those words, but neither the number nor the type.
  """
  while error is not None:
    if isinstance(error, OSError) and error.errno in FULL_DISK:
      return os.strerror(error.errno)
    for number in FULL_DISK:
      if os.strerror(number) in str(error):
        return os.strerror(number)
    error = error.__cause__ or error.__context__
  return None
