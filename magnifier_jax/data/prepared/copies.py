"""The prepared copies of a data set, side by side, none of which ever changes.

Below `data_dir/NAME[/VARIANT]` lie

    KEY/                    a copy; the key is made from the contents of all files and the options
    sources/PLACE.npz       which copy a folder of the user's has, and what its files were then
    sources/PLACE.lock      is locked by whoever prepares from that folder
    preparing-PLACE-…/      a copy in the making, renamed when it is whole
    removing-…/             a copy that is being deleted

Whoever reads or makes a copy holds a lock on the file `lock` in it.
"""

import contextlib
import datetime
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from magnifier_jax.errors import UserError
from magnifier_jax.files import file_lock
from magnifier_jax.files.file_lock import FileLock

FACTS_FILE = "copy.json"
_LOCK_FILE = "lock"
_SOURCES = "sources"
_PREPARING = "preparing"
_REMOVING = "removing"
# What reading an `.npz` raises that is not there, or not whole after the power failed.
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
_FORGOTTEN_SECONDS = 24 * 3600  # since the last write, of another machine's half-made copy


class PreparedCopyError(UserError):
  """A prepared copy is damaged or in use, or none or several could be meant."""


class CopyFacts(NamedTuple):
  """What is stored about a copy, beside its records."""

  described: str  # hash of all sources but the contents of their files
  options: dict[str, str]  # that made a difference
  made_from: str  # folder; '' when the images are drawn
  made: str  # date and time
  images: dict[str, int]  # by split
  file_bytes: dict[str, int]  # by name


class PreparedCopy(NamedTuple):
  """A whole copy that stays while this is referred to."""

  folder: Path
  facts: CopyFacts
  in_use: FileLock

  @property
  def key(self) -> str:
    return self.folder.name


class LastSeen(NamedTuple):
  """What the files of a folder were when they were last compared with a copy."""

  key: str  # of the copy
  listing: str  # hash of the files' names, and of whom they show
  states: np.ndarray  # (N, 3) int64, of `file_states`
  digests: np.ndarray  # (N, 16) uint8


def place_name(manual_dir: Path | None, options: dict[str, str]) -> str:
  """Returns the name under which a folder of the user's is remembered, with these options."""
  about = [os.path.realpath(manual_dir) if manual_dir else "", sorted(options.items())]
  return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


class PreparedCopies:
  """The copies of one data set."""

  def __init__(self, folder: Path):
    """Looks at `data_dir/NAME[/VARIANT]`, which need not exist."""
    self.folder = folder

  def open(self, key: str) -> PreparedCopy | None:
    """Opens a copy; None when there is none of that key.

    Raises:
      PreparedCopyError: when it is damaged.
    """
    folder = self.folder / key
    try:
      lock = file_lock.acquire(folder / _LOCK_FILE, shared=True)
    except (FileNotFoundError, NotADirectoryError):
      return None
    # Somebody may be removing it, or have done so before the lock was taken.
    if lock is None or not lock.is_on(folder / _LOCK_FILE):
      return None
    facts = _read_facts(folder)
    for name, size in facts.file_bytes.items():
      file = folder / name
      if not file.is_file() or file.stat().st_size != size:
        raise _damaged(file)
    return PreparedCopy(folder, facts, lock)

  def keys(self) -> list[str]:
    """Returns the keys of all whole copies, sorted."""
    return sorted(file.parent.name for file in self.folder.glob(f"[0-9a-f]*/{FACTS_FILE}"))

  def facts(self) -> dict[str, CopyFacts]:
    """Returns what is stored about each copy, by key.

    Raises:
      PreparedCopyError: when one is damaged.
    """
    return {key: _read_facts(self.folder / key) for key in self.keys()}

  def current_keys(self) -> set[str]:
    """Returns the keys of the copies that folders had when they were last looked at."""
    keys = set()
    for file in (self.folder / _SOURCES).glob("*.npz"):
      with contextlib.suppress(*_UNREADABLE), np.load(file) as stored:
        keys.add(str(stored["key"]))
    return keys

  def last_seen(self, place: str) -> LastSeen | None:
    """Returns what the files of a folder were; None when it was never seen."""
    try:
      with np.load(self.folder / _SOURCES / f"{place}.npz") as stored:
        return LastSeen(
          str(stored["key"]), str(stored["listing"]), stored["states"], stored["digests"]
        )
    except _UNREADABLE:
      return None

  def remember(self, place: str, seen: LastSeen) -> None:
    """Stores which copy the files of a folder have."""
    file = self.folder / _SOURCES / f"{place}.npz"
    try:
      file.parent.mkdir(parents=True, exist_ok=True)
      with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".writing", delete=False) as new:
        np.savez(new, **seen._asdict())
      os.chmod(new.name, 0o644)  # others may read the copy, so this too
      os.replace(new.name, file)
    except OSError as error:
      # The folder may belong to somebody else; then changed files are hashed at every start.
      logging.info("%s: not written (%s)", file, error.strerror)

  @contextlib.contextmanager
  def one_prepares(self, place: str) -> Iterator[bool]:
    """Lets one process at a time prepare from a folder; yields whether it had to wait."""
    file = self.folder / _SOURCES / f"{place}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    lock = file_lock.acquire(file, shared=False)
    waited = lock is None
    if lock is None:
      logging.warning("Another process prepares the same data set in %s: waiting", self.folder)
      lock = file_lock.acquire(file, shared=False, wait=True)
    self._clean_up()
    try:
      yield waited
    finally:
      lock.release()

  @contextlib.contextmanager
  def new_folder(self, place: str) -> Iterator["NewCopy"]:
    """Yields a folder for a copy in the making, which is deleted unless it is kept."""
    # Under a name that nobody looks for until it is locked, or it would seem abandoned.
    hidden = Path(tempfile.mkdtemp(prefix=f".{_PREPARING}-{place}-", dir=self.folder))
    hidden.chmod(0o755)
    (hidden / _LOCK_FILE).write_text(socket.gethostname())
    lock = file_lock.acquire(hidden / _LOCK_FILE, shared=True)
    folder = hidden.rename(hidden.with_name(hidden.name.removeprefix(".")))
    try:
      yield NewCopy(self, folder, lock)
    finally:
      shutil.rmtree(folder, ignore_errors=True)

  def half_made(self) -> list[Path]:
    """Returns the folders of copies that are being made or removed, or were when that ended."""
    return sorted([*self.folder.glob(f"{_PREPARING}-*"), *self.folder.glob(f"{_REMOVING}-*")])

  def remove(self, name: str) -> None:
    """Deletes a copy, whole or half made.

    Args:
      name: of its folder.

    Raises:
      PreparedCopyError: when somebody uses it, or that cannot be known.
    """
    folder = self.folder / name
    if not (folder / _LOCK_FILE).exists():
      shutil.rmtree(folder)  # whoever made or removed it was killed before or after locking it
      return
    lock = file_lock.acquire(folder / _LOCK_FILE, shared=False)
    if lock is None:
      raise PreparedCopyError(f"{folder}: a running process uses this copy; remove it later")
    if not lock.is_real:
      raise PreparedCopyError(
        f"{folder}: this file system has no locks, so whether a process uses this copy is unknown; "
        "delete the folder yourself when none does"
      )
    # First it is gone for everybody who looks for it, then file by file.
    leaving = folder.with_name(f"{_REMOVING}-{time.time_ns():x}")
    folder.rename(leaving)
    shutil.rmtree(leaving)

  def _clean_up(self) -> None:
    """Deletes what processes left that were killed while they prepared or removed."""
    for folder in self.half_made():
      if is_abandoned(folder):
        shutil.rmtree(folder, ignore_errors=True)


class NewCopy(NamedTuple):
  """A copy in the making."""

  copies: PreparedCopies
  folder: Path
  lock: FileLock

  def keep(self, key: str, facts: CopyFacts) -> PreparedCopy:
    """Makes the finished folder the copy of a key, or returns the one that is already there."""
    (self.folder / FACTS_FILE).write_text(json.dumps(facts._asdict(), indent=1))
    place = self.copies.folder / key
    try:
      self.folder.rename(place)  # refused where there is a copy already
    except OSError:
      copy = self.copies.open(key)
      if copy is None:
        raise
      return copy
    return PreparedCopy(place, facts, self.lock)


def _read_facts(folder: Path) -> CopyFacts:
  try:
    return CopyFacts(**json.loads((folder / FACTS_FILE).read_text()))
  except (OSError, ValueError, TypeError) as error:
    raise _damaged(folder / FACTS_FILE) from error


def _damaged(file: Path) -> PreparedCopyError:
  return PreparedCopyError(
    f"{file}: missing or not whole, so the copy in its folder was damaged after it was prepared; "
    f"delete {file.parent} and it is prepared again"
  )


def is_in_use(folder: Path) -> bool:
  """Whether a process reads or makes the copy in a folder, as far as its file system tells."""
  try:
    return file_lock.acquire(folder / _LOCK_FILE, shared=False) is None
  except OSError:
    return False


def is_abandoned(folder: Path) -> bool:
  """Whether the process that made or removed a copy in a folder is gone."""
  try:
    lock = file_lock.acquire(folder / _LOCK_FILE, shared=False)
    maker = (folder / _LOCK_FILE).read_text()
    written = max(file.stat().st_mtime for file in [folder, *folder.iterdir()])
  except OSError:
    # Without a lock file: it was killed between two of its first, or last, steps.
    return folder.is_dir() and time.time() - folder.stat().st_mtime > _FORGOTTEN_SECONDS
  if lock is None:
    return False
  # Some clusters' file systems keep each machine's locks to itself.
  is_ours = lock.is_real and maker == socket.gethostname()
  return is_ours or time.time() - written > _FORGOTTEN_SECONDS


def sizes(folder: Path) -> dict[str, int]:
  """Returns the size of each file of a copy, by name, in bytes."""
  return {
    file.name: file.stat().st_size
    for file in sorted(folder.iterdir())
    if file.name not in (_LOCK_FILE, FACTS_FILE)
  }


def timestamp() -> str:
  """Returns the date and time, to the second."""
  return datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")


def describe_choices(copies: PreparedCopies, keys: Sequence[str]) -> str:
  """Returns a few copies in words, for a message."""
  facts = copies.facts()
  return "; ".join(f"{key} from {facts[key].made_from}, {facts[key].made}" for key in keys)
