"""MSMT17 (Wei et al., CVPR 2018), versions 1 and 2, read from the user's folder."""

import dataclasses
import re
from pathlib import Path

import tensorflow_datasets as tfds

from magnifier_jax.data.datasets.file_builder import FileReidBuilder, ListedImage
from magnifier_jax.data.records import SourceError, SourceMissingError, SplitCounts

# Person, image number, camera: 0000_000_01_0303morning_0008_0.jpg.
_NAME = re.compile(r"\d+_\d+_(?P<camera_id>\d+)_")
_LINE = re.compile(r"(?P<path>\S.*?)\s+(?P<person_id>\d{1,99})")
_LISTS = {
  "train": ("list_train.txt",),
  "trainval": ("list_train.txt", "list_val.txt"),
  "query": ("list_query.txt",),
  "gallery": ("list_gallery.txt",),
}


@dataclasses.dataclass(eq=False, kw_only=True)
class Msmt17Config(tfds.core.BuilderConfig):
  """Which version, and what is trained on."""

  folder: str
  train_folder: str
  test_folder: str
  validation: bool  # True: train on list_val.txt as well as list_train.txt


def _configs() -> list[Msmt17Config]:
  folders = {
    "v1": ("MSMT17_V1", "train", "test"),
    # The second version has masked faces.
    "v2": ("MSMT17_V2", "mask_train_v2", "mask_test_v2"),
  }
  return [
    Msmt17Config(
      name=name + suffix,
      description=f"{folder}, trained on {'train and val' if suffix else 'train alone'}",
      folder=folder,
      train_folder=train_folder,
      test_folder=test_folder,
      validation=bool(suffix),
    )
    for name, (folder, train_folder, test_folder) in folders.items()
    for suffix in ("", "_trainval")
  ]


class Msmt17(FileReidBuilder):
  """MSMT17: 1,041 people from 15 cameras to train on, 3,060 to test on.

  Training and test people are numbered from 0 each, so the same number is not the same person.
  """

  VERSION = tfds.core.Version("1.0.0")
  NUMBERS_TEST_PEOPLE_ANEW = True
  BUILDER_CONFIGS = _configs()
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
  Put MSMT17_V1/{train,test}/0000/0000_000_01_0303morning_0008_0.jpg and MSMT17_V1/list_*.txt, or
  MSMT17_V2/{mask_train_v2,mask_test_v2}/… and MSMT17_V2/list_*.txt, into this folder; and the part
  labels MSMT17_V1_ps_label/train/0000/….png or MSMT17_V2_ps_label/mask_train_v2/0000/….png.
  """

  def published_counts(self) -> dict[str, SplitCounts]:
    train_images = 30_248 + 2_373 * self.builder_config.validation
    return {
      "train": SplitCounts(train_images, 1_041, 15),
      "query": SplitCounts(11_659, 3_060, 15),
      "gallery": SplitCounts(82_161, 3_060, 15),
    }

  def data_set_folder(self, manual_dir: Path) -> Path:
    return manual_dir / self.builder_config.folder

  def naming(self) -> str:
    return (
      "the camera is the third field of an image's name, as in 0000_000_01_0303morning_0008_0.jpg; "
      "correct the list that names it"
    )

  def list_images(self, split: str, manual_dir: Path) -> list[ListedImage]:
    config = self.builder_config
    folder = self.data_set_folder(manual_dir)
    images_folder = config.train_folder if split == "train" else config.test_folder
    lists = _LISTS["trainval" if split == "train" and config.validation else split]
    return [
      _listed(folder, f"{images_folder}/{line['path']}", int(line["person_id"]))
      for name in lists
      for line in _read_lines(folder / name)
    ]


def _listed(folder: Path, path: str, person_id: int) -> ListedImage:
  name = _NAME.match(path.rsplit("/", 1)[-1])
  return ListedImage(f"{folder}/{path}", path, person_id, int(name["camera_id"]) if name else None)


def _read_lines(file: Path) -> list[re.Match[str]]:
  if not file.is_file():
    raise SourceMissingError(
      f"{file}: no such file; MSMT17's lists of images belong there. config.data.manual_dir is the "
      f"folder that holds {file.parent.name}"
    )
  lines = [_LINE.fullmatch(line.strip()) for line in file.read_text().splitlines() if line.strip()]
  if None in lines or not lines:
    raise SourceError(
      f"{file}: line {lines.index(None) + 1 if lines else 1} is not 'path person', as in "
      "0000/0000_000_01_0303morning_0008_0.jpg 0"
    )
  return lines
