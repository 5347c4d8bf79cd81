"""What one record of a re-identification data set is, and the TFDS builder that writes them.

A data set is a subclass of `ReidBuilder`: it lists where the records of a split come from and reads
one. Everything else (features, splits, storage with access by index) is the same for all.
"""

import abc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

SPLITS = ("train", "query", "gallery")
FINGERPRINT_FILE = "source_fingerprint.json"


class Record(NamedTuple):
  """One image of one person."""

  image: bytes  # JPEG or PNG file, (H, W, 3)
  part_labels: bytes  # PNG file, (H, W, 1), values 0…7 of `occlusion.PARTS`
  person_id: int  # as named in the source; -1 is junk
  camera_id: int  # as named in the source
  path: str  # of the image, relative and unique within its split


class SourceError(ValueError):
  """The user's data set is missing, incomplete or damaged; the message names the file or folder."""


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

  def fingerprint(self, manual_dir: Path | None) -> str:
    """Returns a text that changes when the user's files do; '' when there are none."""
    del manual_dir
    return ""

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self, description=type(self).__doc__, features=reid_features()
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    manual_dir = Path(dl_manager.manual_dir) if self.MANUAL_DOWNLOAD_INSTRUCTIONS else None
    # TFDS has pointed `data_dir` at its temporary folder, so the file appears with the records.
    (Path(self.data_dir) / FINGERPRINT_FILE).write_text(json.dumps(self.fingerprint(manual_dir)))
    sources = {split: self.sources(split, manual_dir) for split in SPLITS}
    return {split: self._generate_examples(sources[split]) for split in SPLITS}

  def _generate_examples(self, sources: Sequence[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for source in sources:
      record = self.read_record(source)
      yield record.path, record._asdict()
