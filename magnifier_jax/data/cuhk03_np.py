"""CUHK03 under the new protocol (Zhong et al., CVPR 2017), read from the user's folder."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from magnifier_jax.data import image_files
from magnifier_jax.data.records import (
  SPLITS,
  Record,
  ReidBuilder,
  SourceError,
  SourceMissingError,
)

_SPLIT_FOLDERS = {
  "train": "bounding_box_train",
  "query": "query",
  "gallery": "bounding_box_test",
}
_NAME = re.compile(r"(?P<person_id>\d+)_c(?P<camera_id>\d+)_\d+")


class _Source(NamedTuple):
  image: Path
  part_labels: Path
  path: str  # of the image below the folder of the boxes, e.g. query/0001_c1_1.png


class Cuhk03Np(ReidBuilder):
  """CUHK03-NP: 1,467 people from pairs of cameras, 767 to train on and 700 to test on.

  The images are the user's own copy, with the part labels beside them.
  """

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(name="labeled", description="boxes drawn by people"),
    tfds.core.BuilderConfig(name="detected", description="boxes of a pedestrian detector"),
  )
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
  Put cuhk03-np/{labeled,detected}/{bounding_box_train,query,bounding_box_test}/0001_c1_1.png and
  the part labels cuhk03-np_ps_label/{labeled,detected}/…/0001_c1_1.png into this folder.
  """

  def sources(self, split: str, manual_dir: Path) -> list[_Source]:
    """Lists the images of a split with their part labels; see `ReidBuilder.sources`."""
    boxes = self.builder_config.name
    folder = manual_dir / "cuhk03-np" / boxes / _SPLIT_FOLDERS[split]
    images = image_files.list_images(folder) if folder.is_dir() else []
    if not images:
      raise SourceMissingError(
        f"{folder}: {'no images there' if folder.is_dir() else 'no such folder'}; it should hold "
        f"the {split} images of CUHK03-NP ({boxes}), named 0001_c1_1.png or .jpg. "
        "config.data.manual_dir is the folder that holds cuhk03-np"
      )
    part_labels = _find_part_labels(manual_dir, images)
    return [
      _Source(image, labels, f"{_SPLIT_FOLDERS[split]}/{image.name}")
      for image, labels in zip(images, part_labels)
    ]

  def read_record(self, source: _Source) -> Record:
    """Reads and checks one image and its part labels; see `ReidBuilder.read_record`."""
    name = _NAME.fullmatch(source.image.stem)
    if name is None:
      raise SourceError(
        f"{source.image}: the name of a CUHK03-NP image is person_camera_number, as in 0001_c1_1; "
        "rename it or move it away"
      )
    image = image_files.read_image(source.image)
    return Record(
      image=image.encoded,
      part_labels=image_files.read_part_labels(source.part_labels, image.size_hw),
      person_id=int(name["person_id"]),
      camera_id=int(name["camera_id"]),
      path=source.path,
    )

  def fingerprint(self, manual_dir: Path) -> str:
    """Digests the names and sizes of all files; see `ReidBuilder.fingerprint`."""
    digest = hashlib.sha256()
    for source in (source for split in SPLITS for source in self.sources(split, manual_dir)):
      sizes = source.image.stat().st_size, source.part_labels.stat().st_size
      digest.update(f"{source.path}|{source.part_labels.suffix}|{sizes}\n".encode())
    return digest.hexdigest()


def _find_part_labels(manual_dir: Path, images: list[Path]) -> list[Path]:
  """Returns the part-label file of each of a folder's images."""
  folder = images[0].parent.relative_to(manual_dir / "cuhk03-np")
  # EANet's layout, then the arrays of the authors' code, beside the data set or inside it.
  layouts = (
    (manual_dir / "cuhk03-np_ps_label" / folder, lambda image: f"{image.stem}.png"),
    (manual_dir / "segmentation" / "cuhk03-np" / folder, lambda image: f"{image.name}.npy"),
    (manual_dir / "cuhk03-np" / "segmentation" / folder, lambda image: f"{image.name}.npy"),
  )
  present = [{file.name for file in place.glob("*")} for place, _ in layouts]
  found = [
    next(
      (
        place / name(image)
        for (place, name), names in zip(layouts, present)
        if name(image) in names
      ),
      None,
    )
    for image in images
  ]
  missing = [image for image, labels in zip(images, found) if labels is None]
  if missing:
    places = " or ".join(str(place / name(missing[0])) for place, name in layouts)
    raise SourceError(
      f"{missing[0]}: part labels missing (for {len(missing)} of {len(images)} images there); "
      f"looked for {places}"
    )
  return found
