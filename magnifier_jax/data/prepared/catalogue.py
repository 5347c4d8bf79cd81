"""All prepared copies below a `data_dir`, whichever data sets they are of."""

import enum
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from magnifier_jax.data.prepared import copies as copies_lib
from magnifier_jax.data.prepared.copies import PreparedCopies

DEFAULT_DATA_DIR = tfds.core.constants.DATA_DIR

_OUTDATED_FILE = "source_fingerprint.json"  # in the copies of earlier versions


class State(enum.Enum):
  """What a copy is good for."""

  CURRENT = "current"
  REPLACED = "replaced"
  UNFINISHED = "unfinished"
  OUTDATED = "outdated"


class CatalogueEntry(NamedTuple):
  """A copy."""

  folder: Path
  dataset: str  # as in the config, but that a folder of the user's has a name of its own
  state: State
  in_use: bool
  images: int  # 0: unknown
  num_bytes: int
  made: str  # '': unknown
  made_from: str  # '': unknown


def entries(data_dir: Path) -> Iterator[CatalogueEntry]:
  """Yields all copies below a folder, by data set and then by age."""
  folders = sorted({*data_dir.glob("*"), *data_dir.glob("*/*")})
  for folder in folders:
    if not folder.is_dir():
      continue
    copies = PreparedCopies(folder)
    dataset = folder.relative_to(data_dir).as_posix()
    current = copies.current_keys()
    facts = copies.facts()
    for key in sorted(facts, key=lambda key: facts[key].made):
      state = State.CURRENT if key in current else State.REPLACED
      images = sum(facts[key].images.values())
      about = facts[key].made, facts[key].made_from
      yield _entry(folder / key, dataset, state, copies_lib.is_in_use(folder / key), images, *about)
    for half_made in copies.half_made():
      in_use = copies_lib.is_in_use(half_made)
      yield _entry(half_made, dataset, State.UNFINISHED, in_use, 0, "", "")
    for file in sorted(folder.glob(f"*/{_OUTDATED_FILE}")):
      yield _entry(file.parent, dataset, State.OUTDATED, False, _images(file.parent), "", "")


def remove(entry: CatalogueEntry) -> None:
  """Deletes a copy.

  Raises:
    PreparedCopyError: when a process uses it, or that cannot be known.
  """
  if entry.state is State.OUTDATED:
    shutil.rmtree(entry.folder)  # earlier versions had no locks
  else:
    PreparedCopies(entry.folder.parent).remove(entry.folder.name)


def _entry(
  folder: Path, dataset: str, state: State, in_use: bool, images: int, made: str, made_from: str
) -> CatalogueEntry:
  with os.scandir(folder) as files:
    num_bytes = sum(file.stat().st_size for file in files if file.is_file())
  return CatalogueEntry(folder, dataset, state, in_use, images, num_bytes, made, made_from)


def _images(outdated: Path) -> int:
  try:
    splits = json.loads((outdated / "dataset_info.json").read_text())["splits"]
    return sum(int(length) for split in splits for length in split["shardLengths"])
  except (OSError, ValueError, KeyError):
    return 0
