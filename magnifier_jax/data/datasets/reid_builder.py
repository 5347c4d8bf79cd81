"""Base of the TFDS builders.

A data set is a subclass of `ReidBuilder`: it lists where the records of a split come from and reads
one. Everything else (features, splits, storage with access by index) is the same for all.
`file_builder` is the base of those that read the user's files.
"""

import abc
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from magnifier_jax.data.prepared import file_states, record_files
from magnifier_jax.data.prepared.reading import Reader, ReadingPool
from magnifier_jax.data.prepared.record_files import EncodedRecord
from magnifier_jax.data.records import SPLITS, Record

Sources = dict[str, Sequence[Any]]  # by split, in the order of `SPLITS`


class Written(NamedTuple):
  """What was written into a folder."""

  splits: tfds.core.splits.SplitDict
  digests: np.ndarray  # (files, 16) uint8, of `ReidBuilder.files` of all sources in order


class ReidBuilder(tfds.core.DatasetBuilder, skip_registration=True):
  """Base of the project's TFDS builders.

  A subclass sets `VERSION`, documents itself in its docstring, and implements `sources` and
  `read_record`. One that reads the user's files also sets `MANUAL_DOWNLOAD_INSTRUCTIONS` and
  implements `files`.
  """

  # Nothing is downloaded. Looking for checksums, TFDS 4.9.10 needs a package it does not install.
  url_infos = None

  def __new__(cls, **kwargs: Any):
    builder = super().__new__(cls)
    builder._arguments = kwargs
    return builder

  def __reduce__(self) -> tuple[Callable[[], "ReidBuilder"], tuple[()]]:
    # TFDS's own pickling forgets the arguments of subclasses.
    return functools.partial(type(self), **self._arguments), ()

  @abc.abstractmethod
  def sources(self, split: str, manual_dir: Path | None) -> Sequence[Any]:
    """Lists what `read_record` makes the records of a split from, cheaply and in a fixed order.

    Args:
      split: one of `SPLITS`.
      manual_dir: folder that holds the user's data sets; None when the data are generated.

    Raises:
      SourceError: when the files are not where they should be.
    """

  @abc.abstractmethod
  def read_record(self, source: Any) -> Record:
    """Reads, checks or renders one element of `sources`.

    Raises:
      SourceError: when the file is damaged; the message names it.
    """

  def read_records(self, sources: Sequence[Any]) -> list[Record]:
    """Reads some elements of `sources`; a subclass may read them faster than one by one.

    Raises:
      SourceError: when a file is damaged; the message names it.
    """
    return [self.read_record(source) for source in sources]

  def all_sources(self, manual_dir: Path | None) -> Sources:
    """Lists the sources of every split; see `sources`."""
    return {split: self.sources(split, manual_dir) for split in SPLITS}

  def check_sources(self, split: str, sources: Sequence[Any]) -> None:
    """Refuses what listing a split already shows to be wrong, before any work is done.

    Raises:
      SourceError: names a file, and how many are like it.
    """

  def describe(self, source: Any) -> str:
    """Returns all that a record is made from, but the contents of `files`, `options` and `recipe`.

    The place of the user's folder is no part of it.
    """
    return repr(source)

  def files(self, source: Any) -> Sequence[str]:
    """Returns the files that a record is read from."""
    del source
    return ()

  def options(self, sources: Sources | None = None) -> dict[str, str]:
    """Returns the fields of the config that decide what the records of given files are.

    Args:
      sources: leave out what makes no difference to the records of these; None leaves out nothing.
    """
    del sources
    return {}

  def recipe(self) -> str:
    """Returns a text that changes when the code that makes the records does."""
    return ""

  def write(self, sources: Sources, folder: Path) -> Written:
    """Reads all sources, and writes their records with all that TFDS needs to open them.

    Args:
      sources: of every split.
      folder: exists.

    Raises:
      SourceError: when a file is damaged; the message names it.
    """
    digests = bytearray()
    reader = Reader(self.read_records, self.files)
    with ReadingPool(reader, sum(map(len, sources.values()))) as pool:
      splits = [
        record_files.write_split(
          folder, self.name, split, self._read(pool, split, sources[split], digests)
        )
        for split in SPLITS
      ]
    info = self._info()
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(folder)
    rows = np.frombuffer(bytes(digests), np.uint8).reshape(-1, file_states.DIGEST_BYTES)
    return Written(info.splits, rows)

  def _read(
    self, pool: ReadingPool, split: str, sources: Sequence[Any], digests: bytearray
  ) -> Iterator[EncodedRecord]:
    """Yields the records of a split, and appends the hashes of their files to `digests`."""
    progress = tqdm(
      pool.read_in_order(sources),
      desc=f"Preparing {self.name}, {split}",
      total=len(sources),
      unit="image",
      mininterval=1,
    )
    for read in progress:
      digests += read.digests
      yield read.record

  def _info(self) -> tfds.core.DatasetInfo:
    # Unshuffled, record i is source i, so the gallery order that breaks ties is that of the names.
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      features=reid_features(),
      disable_shuffling=True,
    )

  def _download_and_prepare(self, dl_manager: tfds.download.DownloadManager, **kwargs: Any) -> None:
    """Prepares where TFDS's own functions look; `dataset.prepare` has a place for each source."""
    manual_dir = Path(dl_manager.manual_dir) if self.MANUAL_DOWNLOAD_INSTRUCTIONS else None
    sources = self.all_sources(manual_dir)
    for split in SPLITS:
      self.check_sources(split, sources[split])
    written = self.write(sources, Path(self.data_path))
    self.info.set_file_format("array_record")
    self.info.set_splits(written.splits)

  def _as_dataset(self, *args: Any, **kwargs: Any) -> None:
    raise NotImplementedError("ArrayRecord files are read by `as_data_source`")


def reid_features() -> tfds.features.FeaturesDict:
  """Returns the TFDS features of a `Record`."""
  return tfds.features.FeaturesDict(
    {
      "image": tfds.features.Image(shape=(None, None, 3)),
      "part_labels": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
      "person_id": np.int64,
      "camera_id": np.int64,
      "path": tfds.features.Text(),
    }
  )
