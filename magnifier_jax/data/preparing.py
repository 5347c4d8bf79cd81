"""Finds the prepared copy that was made from what the user's folder holds now, or makes it."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from magnifier_jax.data.datasets.reid_builder import ReidBuilder, Sources
from magnifier_jax.data.prepared import copies as copies_lib
from magnifier_jax.data.prepared import file_states
from magnifier_jax.data.prepared.copies import (
  CopyFacts,
  LastSeen,
  PreparedCopies,
  PreparedCopy,
  PreparedCopyError,
)
from magnifier_jax.data.records import SPLITS, SourceMissingError

TOOL = "python -m magnifier_jax.tools.prepared_data"

# Part of every key: how records are stored. A copy of another number is prepared again.
_FORMAT = 2


class Seen(NamedTuple):
  """What a folder of the user's holds, without having read a file."""

  sources: Sources
  files: list[str]  # of all sources, in order
  described: str  # hash of the sources but their files' names and contents
  listing: str  # hash of the sources but their files' contents
  states: np.ndarray  # (files, 3) int64, of `file_states.look`
  looked_at: int  # before that, ns


def copies_of(builder: ReidBuilder) -> PreparedCopies:
  """Returns the copies of a builder's data set, `data_dir/NAME[/VARIANT]`."""
  return PreparedCopies(Path(builder.data_path).parent)


def prepare(builder: ReidBuilder, manual_dir: Path | None) -> PreparedCopy:
  """Opens the copy of what the folder holds now, preparing it first where there is none.

  Args:
    builder: of the data set.
    manual_dir: folder that holds the user's data sets; None when the data are generated.

  Raises:
    SourceError: when the user's files are missing or damaged; the message names them.
    PreparedCopyError: when the files are not there and several copies could be meant, or when a
      copy is damaged or cannot be written.
  """
  copies = copies_of(builder)
  place = copies_lib.place_name(manual_dir, builder.options())
  try:
    sources = builder.all_sources(manual_dir)
  except SourceMissingError as error:
    return _without_source(builder, copies, manual_dir, error)
  seen = _look(builder, sources)
  copy = _find(copies, place, seen)
  if copy is not None:
    return copy
  for split in SPLITS:
    builder.check_sources(split, sources[split])
  with _writing(copies.folder), copies.one_prepares(place) as waited:
    copy = _find(copies, place, seen) if waited else None
    return copy or _make(builder, manual_dir, copies, place, seen)


def last_used(builder: ReidBuilder, manual_dir: Path | None) -> PreparedCopy | None:
  """Opens the copy that was used last, whatever the user's folder holds now; None without one.

  Args:
    builder: of the data set.
    manual_dir: as for `prepare`.

  Raises:
    PreparedCopyError: when the copy is damaged.
  """
  copies = copies_of(builder)
  last = copies.last_seen(copies_lib.place_name(manual_dir, builder.options()))
  return None if last is None else copies.open(last.key)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
  """Says in one line that a copy cannot be written, and why."""
  try:
    yield
  except OSError as error:
    raise PreparedCopyError(
      f"{folder}: no copy can be written there ({error.strerror or error}); free some space, or "
      "set config.data.data_dir to another folder"
    ) from error


def _look(builder: ReidBuilder, sources: Sources) -> Seen:
  """Lists the files of all sources, and asks the file system about them."""
  made_how = [_FORMAT, str(builder.version), builder.recipe(), builder.options(sources)]
  described = hashlib.sha256(repr(made_how).encode())
  files = []
  for split in SPLITS:
    lines = [split]
    for source in sources[split]:
      lines.append(builder.describe(source))
      files += builder.files(source)
    described.update("\n".join(lines).encode("utf-8", "surrogateescape"))
  listing = described.copy()
  listing.update("\n".join(files).encode("utf-8", "surrogateescape"))
  looked_at = file_states.now()
  states = file_states.look(files)
  return Seen(sources, files, described.hexdigest(), listing.hexdigest(), states, looked_at)


def _find(copies: PreparedCopies, place: str, seen: Seen) -> PreparedCopy | None:
  """Returns the copy of exactly this; None when there is none."""
  last = copies.last_seen(place)
  changed = np.arange(len(seen.files))
  if last is not None and last.listing == seen.listing:
    changed = file_states.differing(last.states, seen.states)
    if not len(changed):
      return copies.open(last.key)
    digests = last.digests.copy()
  elif any(facts.described == seen.described for facts in copies.facts().values()):
    # Another folder's copy, or this folder's before it was moved, may be of the same contents.
    digests = np.zeros((len(seen.files), file_states.DIGEST_BYTES), np.uint8)
  else:
    return None
  try:
    digests[changed] = file_states.digests([seen.files[row] for row in changed])
  except OSError:
    return None  # preparing says which file it is, and what is wrong
  copy = copies.open(_key(seen, digests))
  if copy is not None:
    _remember(copies, place, seen, copy, digests)
  return copy


def _make(
  builder: ReidBuilder,
  manual_dir: Path | None,
  copies: PreparedCopies,
  place: str,
  seen: Seen,
) -> PreparedCopy:
  last = copies.last_seen(place)
  if last is not None and last.key in copies.keys():  # noqa: SIM118 - it is no dictionary
    logging.warning(
      "The files of %s, or how they are read, have changed since %s was prepared: preparing again. "
      "%s lists and removes old copies",
      builder.name,
      copies.folder / last.key,
      TOOL,
    )
  logging.info("Preparing %s in %s", builder.name, copies.folder)
  with copies.new_folder(place) as new:
    written = builder.write(seen.sources, new.folder)
    facts = CopyFacts(
      described=seen.described,
      options=builder.options(seen.sources),
      made_from=str(manual_dir.absolute()) if manual_dir else "",
      made=copies_lib.timestamp(),
      images={split: len(seen.sources[split]) for split in SPLITS},
      file_bytes=copies_lib.sizes(new.folder),
    )
    copy = new.keep(_key(seen, written.digests), facts)
  _remember(copies, place, seen, copy, written.digests)
  return copy


def _remember(
  copies: PreparedCopies, place: str, seen: Seen, copy: PreparedCopy, digests: np.ndarray
) -> None:
  states = file_states.settled(seen.states, seen.looked_at)
  copies.remember(place, LastSeen(copy.key, seen.listing, states, digests))


def _key(seen: Seen, digests: np.ndarray) -> str:
  return hashlib.sha256(seen.described.encode() + digests.tobytes()).hexdigest()[:16]


def _without_source(
  builder: ReidBuilder, copies: PreparedCopies, manual_dir: Path | None, error: SourceMissingError
) -> PreparedCopy:
  """Opens the copy that is meant on a machine that has nothing but copies."""
  copy = last_used(builder, manual_dir)
  if copy is None:
    options = builder.options().items()
    fitting = [key for key, facts in copies.facts().items() if facts.options.items() <= options]
    if len(fitting) > 1:
      raise PreparedCopyError(
        f"{error}. {copies.folder} holds {len(fitting)} prepared copies, and which one is meant is "
        f"unknown: {copies_lib.describe_choices(copies, fitting)}. Remove the others with {TOOL}, "
        "or use the config.data.manual_dir that it was made from"
      )
    copy = copies.open(fitting[0]) if fitting else None
  if copy is None:
    raise error
  logging.warning(
    "%s. Using the copy prepared before, %s, made from %s on %s",
    error,
    copy.folder,
    copy.facts.made_from,
    copy.facts.made,
  )
  return copy
