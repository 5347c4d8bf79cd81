"""What one record of a re-identification data set is, and the TFDS builder that writes them.

A data set is a subclass of `ReidBuilder`: it lists where the records of a split come from and reads
one. Everything else (features, splits, storage with access by index) is the same for all.
`file_builder` is the base of those that read the user's files.
"""

import abc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from magnifier_jax.errors import UserError

SPLITS = ("train", "query", "gallery")

_FINGERPRINT_FILE = "source_fingerprint.json"
_INDEX_FILE = "index_{split}.json"


class Record(NamedTuple):
  """One image of one person."""

  image: bytes  # JPEG or PNG file, (H, W, 3)
  part_labels: bytes  # PNG file, (H, W, 1), values 0…7 of `body_parts.PARTS`
  person_id: int  # as named in the source; -1 is junk
  camera_id: int  # as named in the source
  path: str  # of the image, relative and unique within its split


class SplitIndex(NamedTuple):
  """Everything of a split's records but the pixels, in the order of the records."""

  person_id: np.ndarray  # (N,) int32, as named in the source
  camera_id: np.ndarray  # (N,) int32
  path: tuple[str, ...]


class SplitCounts(NamedTuple):
  """How much a split of a data set holds, as published."""

  images: int  # without junk
  people: int  # without junk and distractors
  cameras: int


class SourceError(UserError):
  """The user's data set is incomplete or damaged; the message names the file or folder."""


class SourceMissingError(SourceError):
  """The user's data set is not where it is looked for."""


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


class ReidBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Base of the project's TFDS builders.

  A subclass sets `VERSION`, documents itself in its docstring, and implements `sources` and
  `read_record`. One that reads the user's files also sets `MANUAL_DOWNLOAD_INSTRUCTIONS` and
  implements `fingerprint`.
  """

  # Nothing is downloaded. Looking for checksums, TFDS 4.9.10 needs a package it does not install.
  url_infos = None

  def __init__(self, **kwargs: Any):
    # P × K sampling and blocks of the gallery need record i, which TFRecord cannot give.
    if kwargs.get("file_format") is None:
      kwargs["file_format"] = "array_record"
    super().__init__(**kwargs)

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

  def check_sources(self, split: str, sources: Sequence[Any]) -> None:
    """Refuses what listing a split already shows to be wrong, before any work is done.

    Raises:
      SourceError: names a file, and how many are like it.
    """

  def fingerprint(self, manual_dir: Path | None) -> str:
    """Returns a text that changes when the user's files do; '' when there are none.

    Raises:
      SourceError: as `sources`.
    """
    del manual_dir
    return ""

  def prepared_fingerprint(self) -> str | None:
    """Returns the fingerprint that the prepared copy was made from; None when there is no copy."""
    # TFDS renames a finished folder into place, so the file is there only with all the records.
    file = self.data_path / _FINGERPRINT_FILE
    return json.loads(file.read_text()) if file.exists() else None

  def read_index(self, split: str) -> SplitIndex:
    """Reads the identities, cameras and paths of a prepared split, without its images."""
    index = json.loads((self.data_path / _INDEX_FILE.format(split=split)).read_text())
    return SplitIndex(
      person_id=np.array(index["person_id"], np.int32),
      camera_id=np.array(index["camera_id"], np.int32),
      path=tuple(index["path"]),
    )

  def _info(self) -> tfds.core.DatasetInfo:
    # Unshuffled, record i is source i, so the gallery order that breaks ties is that of the names.
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      features=reid_features(),
      disable_shuffling=True,
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    manual_dir = Path(dl_manager.manual_dir) if self.MANUAL_DOWNLOAD_INSTRUCTIONS else None
    fingerprint = json.dumps(self.fingerprint(manual_dir))
    sources = {split: self.sources(split, manual_dir) for split in SPLITS}
    for split in SPLITS:
      self.check_sources(split, sources[split])
    # TFDS has pointed `data_path` at its temporary folder by now.
    (self.data_path / _FINGERPRINT_FILE).write_text(fingerprint)
    return {split: self._generate_examples(split, sources[split]) for split in SPLITS}

  def _generate_examples(
    self, split: str, sources: Sequence[Any]
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    index = {"person_id": [], "camera_id": [], "path": []}
    for source in tqdm(
      sources, desc=f"Preparing {self.name}, {split}", unit="image", mininterval=1
    ):
      record = self.read_record(source)
      for field, column in index.items():
        column.append(getattr(record, field))
      yield record.path, record._asdict()
    (self.data_path / _INDEX_FILE.format(split=split)).write_text(json.dumps(index))
