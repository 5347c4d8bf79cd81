"""The published lists of Market-1501 and CUHK03-NP at full size, without the images."""

from pathlib import Path

import pytest
import scipy.io

from magnifier_jax.data.dataset import find_builder
from magnifier_jax.data.records import SPLITS, SplitCounts
from tests.data.conftest import MakeConfig

# Variable names in Market-1501's .mat files of identities and cameras, in the order of the images.
_LISTS = {
  "bounding_box_train": (("train_label", "label"), ("train_cam", "cam")),
  "query": (("queryID", "queryID"), ("queryCam", "queryCAM")),
  "bounding_box_test": (("testID", "testID"), ("testCam", "testCAM")),
}


def _write_market1501(root: Path, lists: Path) -> None:
  """Makes an empty file for each image of the published lists."""
  for folder, columns in _LISTS.items():
    (root / folder).mkdir(parents=True)
    people, cameras = (
      scipy.io.loadmat(lists / f"{file}.mat")[variable].ravel() for file, variable in columns
    )
    for i, (person, camera) in enumerate(zip(people, cameras)):
      name = f"{person:04d}" if person >= 0 else "-1"
      (root / folder / f"{name}_c{camera}s1_{i:06d}_00.jpg").touch()
    (root / folder / "Thumbs.db").touch()


def _counts(builder, split: str, manual_dir: Path) -> SplitCounts:
  """Returns what a split holds, without junk and distractors."""
  images = [source.image for source in builder.sources(split, manual_dir)]
  images = [image for image in images if image.person_id != -1]
  people = {image.person_id for image in images} - {builder.DISTRACTOR_PERSON_ID}
  return SplitCounts(len(images), len(people), len({image.camera_id for image in images}))


def test_market1501_has_the_published_counts(make_config: MakeConfig, tmp_path, protocols):
  _write_market1501(tmp_path / "Market-1501-v15.09.15", protocols / "market1501")
  builder = find_builder(make_config(data__dataset="market1501").data)
  counts = {split: _counts(builder, split, tmp_path) for split in SPLITS}
  assert counts == builder.published_counts()
  assert len(builder.sources("gallery", tmp_path)) == 19_732


@pytest.mark.parametrize("boxes", ["labeled", "detected"])
def test_cuhk03_has_the_published_counts(make_config: MakeConfig, tmp_path, protocols, boxes):
  (tmp_path / "cuhk-03.mat").touch()
  for file in protocols.glob("*.mat"):
    (tmp_path / file.name).write_bytes(file.read_bytes())
  builder = find_builder(make_config(data__dataset=f"cuhk03_np/{boxes}").data)
  counts = {split: _counts(builder, split, tmp_path) for split in SPLITS}
  assert counts == builder.published_counts()
