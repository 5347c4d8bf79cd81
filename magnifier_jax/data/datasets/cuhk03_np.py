"""CUHK03 under the new protocol (Zhong et al., CVPR 2017), from folders or .mat files."""

from pathlib import Path

import tensorflow_datasets as tfds

from magnifier_jax.data import image_files
from magnifier_jax.data.datasets import cuhk03_mat
from magnifier_jax.data.datasets.cuhk03_mat import MatCell
from magnifier_jax.data.datasets.file_builder import FileReader, FileSource, ListedImage
from magnifier_jax.data.datasets.split_folders import SPLIT_FOLDERS, SplitFolderBuilder
from magnifier_jax.data.image_files import ImageFile
from magnifier_jax.data.records import SplitCounts


class Cuhk03Np(SplitFolderBuilder):
  """CUHK03-NP: 1,467 people from pairs of cameras, 767 to train on and 700 to test on.

  The images are the user's own copy, with the part labels beside them. The folders are read where
  they exist, else `cuhk-03.mat`; both give the same records, of the same names.
  """

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(name="labeled", description="boxes drawn by people"),
    tfds.core.BuilderConfig(name="detected", description="boxes of a pedestrian detector"),
  )
  TITLE = "CUHK03-NP"
  FOLDER_NAMES = ("cuhk03-np",)
  EXAMPLE = "0001_c1_1.png (or .jpg)"
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
  Put cuhk03-np/{labeled,detected}/{bounding_box_train,query,bounding_box_test}/0001_c1_1.png into
  this folder, or cuhk-03.mat and cuhk03_new_protocol_config_{labeled,detected}.mat; and the part
  labels cuhk03-np_ps_label/{labeled,detected}/…/0001_c1_1.png.
  """

  def published_counts(self) -> dict[str, SplitCounts]:
    train, gallery = {"labeled": (7_368, 5_328), "detected": (7_365, 5_332)}[
      self.builder_config.name
    ]
    return {
      "train": SplitCounts(train, 767, 2),
      "query": SplitCounts(1_400, 700, 2),
      "gallery": SplitCounts(gallery, 700, 2),
    }

  def data_set_folder(self, manual_dir: Path) -> Path:
    return manual_dir / "cuhk03-np"

  def images_folder(self, manual_dir: Path) -> Path:
    return self.data_set_folder(manual_dir) / self.builder_config.name

  def part_labels_path(self, image: ListedImage) -> str:
    return f"{self.builder_config.name}/{image.path}"

  def list_images(self, split: str, manual_dir: Path) -> list[ListedImage]:
    mat_file = cuhk03_mat.find_mat_file(manual_dir)
    if mat_file is None or self.images_folder(manual_dir).is_dir():
      return super().list_images(split, manual_dir)
    return [
      ListedImage(
        image.cell, f"{SPLIT_FOLDERS[split]}/{image.name}", image.person_id, image.camera_id
      )
      for image in cuhk03_mat.read_protocol(mat_file, self.builder_config.name, split)
    ]

  def read_image(self, source: FileSource, files: FileReader = image_files) -> ImageFile:
    if isinstance(source.image.file, MatCell):
      return cuhk03_mat.read_cell(source.image.file)
    return super().read_image(source, files)

  def describe(self, source: FileSource) -> str:
    cell = source.image.file
    where = f"|{cell.pair}|{cell.person}|{cell.number}" if isinstance(cell, MatCell) else ""
    return super().describe(source) + where

  def image_file(self, image: ListedImage) -> str:
    if isinstance(image.file, MatCell):
      return str(image.file.mat_file)
    return super().image_file(image)
