"""What every way of making part labels has in common."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from magnifier_jax.errors import UserError


class LabellingError(UserError):
  """Part labels cannot be made as asked; the message names the file or option and the mend."""


class PersonImage(NamedTuple):
  """An image to be labelled."""

  path: str  # relative, with `/`, as its part labels are named
  pixels: np.ndarray  # (H, W, 3) uint8 RGB
  file: Path | None = None  # None where it is no file of its own


@dataclasses.dataclass(frozen=True)
class LabelMethod:
  """How labels were made: the same method on the same image gives the same labels."""

  name: str
  model: str  # file, workdir or folder, as the user named it
  sha256: str  # of the model; '' where there is none
  options: Mapping[str, Any]  # JSON values

  @property
  def digest(self) -> str:
    """Names the method; where the model's file lies does not count."""
    options = {name: self.options[name] for name in sorted(self.options)}
    text = json.dumps([self.name, self.sha256 or self.model, options])
    return hashlib.sha256(text.encode()).hexdigest()[:12]

  def __str__(self) -> str:
    return f"{self.name}, {self.model}"


class PartLabeller(Protocol):
  """One way of making part labels."""

  method: LabelMethod
  batch_size: int  # images that are labelled together

  def label(self, images: Sequence[PersonImage]) -> list[np.ndarray | None]:
    """Labels some images.

    Args:
      images: 1 to `batch_size` of them.

    Returns:
      For each image its parts, (H, W) uint8, values 0…7; None where no person was found.

    Raises:
      SourceError: when a file that belongs to one of the images is damaged.
    """


def read_model(file: Path, option: str) -> bytes:
  """Reads the file of a model.

  Args:
    file: path.
    option: of the command line that names it, for the message.

  Raises:
    LabellingError: when it cannot be read.
  """
  try:
    return file.read_bytes()
  except OSError as error:
    raise LabellingError(f"{option}: {file} cannot be read ({error.strerror})") from error
