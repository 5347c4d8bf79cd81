"""What one record of a re-identification data set is, and what is wrong when there is none."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from magnifier_jax.errors import UserError

SPLITS = ("train", "query", "gallery")
NO_CAMERA_ID = -1  # nobody knows which it was


class Record(NamedTuple):
  """One image of one person."""

  image: bytes  # JPEG or PNG file, (H, W, 3)
  part_labels: bytes  # PNG file, (H, W, 1), values 0…7 of `body_parts.PARTS`
  person_id: int  # as named in the source; -1 is junk
  camera_id: int  # as named in the source; -1 where it is unknown
  path: str  # of the image, relative and unique within its split


class SplitIndex(NamedTuple):
  """Everything of a split's records but the pixels, in the order of the records."""

  person_id: np.ndarray  # (N,) int32, as named in the source
  camera_id: np.ndarray  # (N,) int32
  path: Sequence[str]


class SplitCounts(NamedTuple):
  """How much a split of a data set holds, as published."""

  images: int  # without junk
  people: int  # without junk and distractors
  cameras: int


class SourceError(UserError):
  """The user's data set is incomplete or damaged; the message names the file or folder."""


class SourceMissingError(SourceError):
  """The user's data set is not where it is looked for."""
