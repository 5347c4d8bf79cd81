"""CUHK03 as it was published: all images in `cuhk-03.mat`, the new protocol's splits beside it.

The file is MATLAB 7.3, which is HDF5 with the axes the other way round: a 10 × people table of
references for each pair of cameras, each to an image (3, W, H). Images are read one at a time.
"""

import functools
import re
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import scipy.io

from magnifier_jax.data.image_files import ImageFile, encode_png
from magnifier_jax.data.records import SourceError

_MAT_FILES = ("cuhk-03.mat", "cuhk03_release/cuhk-03.mat", "cuhk03/cuhk03_release/cuhk-03.mat")
_INDEX = {"train": "train_idx", "query": "query_idx", "gallery": "gallery_idx"}
# Pair of cameras, person, camera, image of the person: 1_001_1_01.png.
_NAME = re.compile(r"(\d+)_(\d+)_(\d+)_(\d+)\.png")


class MatCell(NamedTuple):
  """Where an image lies in `cuhk-03.mat`; all numbers count from 1, as in its names."""

  mat_file: Path
  boxes: str  # labeled or detected
  pair: int
  person: int
  number: int

  def __str__(self) -> str:
    return (
      f"{self.mat_file}: {self.boxes}, pair {self.pair}, person {self.person}, image {self.number}"
    )


class MatImage(NamedTuple):
  """An image of a split."""

  cell: MatCell
  name: str  # in the folders of CUHK03-NP, e.g. 0001_c1_1.png
  person_id: int
  camera_id: int


def find_mat_file(manual_dir: Path) -> Path | None:
  """Returns the user's `cuhk-03.mat`; None when there is none."""
  files = [manual_dir / name for name in _MAT_FILES]
  return next((file for file in files if file.is_file()), None)


def read_protocol(mat_file: Path, boxes: str, split: str) -> list[MatImage]:
  """Lists the images of a split by name, without reading any.

  Args:
    mat_file: `cuhk-03.mat`.
    boxes: 'labeled' or 'detected'.
    split: 'train', 'query' or 'gallery'.

  Raises:
    SourceError: when the file of the new protocol is missing or damaged.
  """
  protocol_file = _protocol_file(mat_file, boxes)
  try:
    protocol = scipy.io.loadmat(protocol_file)
    rows = protocol[_INDEX[split]].ravel().astype(int) - 1
    if (rows < 0).any():
      raise ValueError(f"{_INDEX[split]} counts from 1")
    images = [
      _image(mat_file, boxes, protocol["filelist"].ravel()[row].item(), *who)
      for row, *who in zip(
        rows, protocol["labels"].ravel()[rows].tolist(), protocol["camId"].ravel()[rows].tolist()
      )
    ]
  except (KeyError, ValueError, IndexError, TypeError, OSError, NotImplementedError) as error:
    raise SourceError(
      f"{protocol_file}: not a readable file of CUHK03's new protocol ({error}); replace it"
    ) from error
  return sorted(images, key=lambda image: image.name)


def read_cell(cell: MatCell) -> ImageFile:
  """Reads one image, and encodes it as PNG without loss.

  Raises:
    SourceError: when `cuhk-03.mat` is damaged or has no image there.
  """
  try:
    file = _open(cell.mat_file, cell.mat_file.stat().st_ctime_ns)
    people = file[file[cell.boxes][()].ravel()[cell.pair - 1]]
    pixels = file[people[cell.number - 1, cell.person - 1]][()]
  except (OSError, KeyError, ValueError, IndexError, RuntimeError) as error:
    raise SourceError(f"{cell}: cannot be read ({error}); replace the file") from error
  if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.dtype != np.uint8:
    raise SourceError(f"{cell}: no image there, but the protocol names one; replace the file")
  image = np.ascontiguousarray(pixels.transpose(2, 1, 0))
  return ImageFile(encode_png(image), image.shape[:2])


@functools.lru_cache(maxsize=1)
def _open(mat_file: Path, changed: int) -> h5py.File:
  del changed  # a file that takes the place of another is opened anew
  return h5py.File(mat_file, "r")


def _protocol_file(mat_file: Path, boxes: str) -> Path:
  name = f"cuhk03_new_protocol_config_{boxes}.mat"
  places = [mat_file.parent, *list(mat_file.parents)[1:3]]
  files = [folder / name for folder in places]
  found = next((file for file in files if file.is_file()), None)
  if found is None:
    raise SourceError(
      f"{files[0]}: no such file; {mat_file.name} needs the splits of the new protocol beside it"
    )
  return found


def _image(mat_file: Path, boxes: str, name: str, person_id: int, camera_id: int) -> MatImage:
  match = _NAME.fullmatch(name)
  if match is None:
    raise ValueError(f"unexpected image name {name!r}")
  pair, person, camera, number = map(int, match.groups())
  if camera != camera_id:
    raise ValueError(f"{name!r} is given camera {camera_id}")
  cell = MatCell(mat_file, boxes, pair, person, number)
  return MatImage(cell, f"{person_id:04d}_c{camera_id}_{number}.png", person_id, camera_id)
