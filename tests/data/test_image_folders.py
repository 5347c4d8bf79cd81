"""Folders of images as they lie on disks: links are followed, and what is not used is said."""

import logging
import os
from pathlib import Path

import pytest

from magnifier_jax.data import dataset
from magnifier_jax.data.image_folders import FolderListing
from magnifier_jax.data.records import SourceError, SourceMissingError

from .noise_tree import write_images

_TEST = ("query/0007_c1_1.jpg", "gallery/0007_c2_1.jpg")


def _paths(data: dataset.ReidDataset) -> list[list[str]]:
  return [list(split.path) for split in (data.train, data.query, data.gallery)]


def _own(make_config, **fields):
  fields = {"data__dataset": "image_list/mine", "data__missing_part_labels": "bands"} | fields
  return make_config(**fields).data


def _reasons(folder: Path, nested: bool = True) -> dict[str, tuple[str, int]]:
  """Returns example and number of what is not used, by the words before the first comma."""
  unused = FolderListing(str(folder), nested=nested).unused
  return {u.reason.partition(",")[0]: (os.path.relpath(u.example, folder), u.count) for u in unused}


@pytest.mark.parametrize("link", ["absolute", "relative"])
def test_linked_folders_are_folders(make_config, tmp_path, link):
  root = tmp_path / "mine"
  real = ["train/cam2/0001_c2_1.jpg", "train/cam2/0002_c2_1.jpg", *_TEST]
  write_images(root, real)
  write_images(tmp_path / "disk", ["cam1/0001_c1_1.jpg", "cam1/b/0002_c1_1.jpg", "g/0008_c3.jpg"])
  for place, target in (("train/cam1", "disk/cam1"), ("gallery/more", "disk/g")):
    to = tmp_path / target
    place = root / place
    place.symlink_to(to if link == "absolute" else os.path.relpath(to, place.parent))
  assert _paths(dataset.load(_own(make_config))) == [
    ["train/cam1/0001_c1_1.jpg", "train/cam1/b/0002_c1_1.jpg", *real[:2]],
    [_TEST[0]],
    [_TEST[1], "gallery/more/0008_c3.jpg"],
  ]


def test_linked_splits_and_images_are_read(make_config, tmp_path):
  write_images(tmp_path / "disk", ["train/0001_c1_1.jpg", "a.jpg"])
  write_images(tmp_path / "mine", _TEST)
  (tmp_path / "mine" / "train").symlink_to(tmp_path / "disk" / "train")
  (tmp_path / "mine" / "gallery" / "0009_c1.jpg").symlink_to(tmp_path / "disk" / "a.jpg")
  assert _paths(dataset.load(_own(make_config)))[::2] == [
    ["train/0001_c1_1.jpg"], [_TEST[1], "gallery/0009_c1.jpg"]
  ]  # fmt: skip


# Link → what it leads to, below a folder with a.jpg, x/b.jpg, y/c.jpg and beside it z/d.jpg.
_LOOPS = {
  "itself": ({"in/x/back": "in/x"}, 3),
  "the folder": ({"in/x/back": "in"}, 3),
  "above the folder": ({"in/x/back": ""}, 3),
  "the root of the disk": ({"in/x/back": "/"}, 3),
  "by turns": ({"in/x/to_z": "z", "z/to_x": "in/x"}, 4),
  "by turns, above": ({"in/x/to_z": "z", "z/up": ""}, 4),
}


@pytest.mark.parametrize(("links", "images"), _LOOPS.values(), ids=_LOOPS)
def test_links_in_a_circle_end_and_are_said(tmp_path, links, images):
  write_images(tmp_path, ["in/a.jpg", "in/x/b.jpg", "in/y/c.jpg", "z/d.jpg"])
  for link, target in links.items():
    (tmp_path / link).symlink_to(tmp_path / target if target != "/" else "/")
  listing = FolderListing(str(tmp_path / "in"), nested=True)
  assert len(listing.paths) == images
  (unused,) = listing.unused
  assert "leads back to a folder around it" in unused.reason


def test_links_that_lead_nowhere_or_to_one_another_are_said(tmp_path):
  write_images(tmp_path, ["a.jpg"])
  (tmp_path / "b.jpg").symlink_to("nowhere.jpg")
  (tmp_path / "c.jpg").symlink_to("d.jpg")
  (tmp_path / "d.jpg").symlink_to("c.jpg")
  os.mkfifo(tmp_path / "e.jpg")
  assert FolderListing(str(tmp_path), nested=True).paths == ["a.jpg"]
  assert _reasons(tmp_path) == {"a link that leads nowhere": ("b.jpg", 4)}


def test_what_is_not_used_is_counted(tmp_path):
  write_images(tmp_path, ["0001_c1.jpg", "0001_c2.JPEG", "x/0001_c3.PNG"])
  for name in ("0001_c4.bmp", "x/0001_c5.BMP", "0001_c6.webp", "Thumbs.db", "README"):
    (tmp_path / name).write_bytes(b"")
  for name in ("._0001_c1.jpg", ".cache/0001_c1.jpg", ".DS_Store"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
  assert len(FolderListing(str(tmp_path), nested=True).paths) == 3
  assert _reasons(tmp_path) == {
    "hidden": (".DS_Store", 3),
    "a .bmp file": ("0001_c4.bmp", 2),
    "a .webp file": ("0001_c6.webp", 1),
    "a .db file": ("Thumbs.db", 1),
    "a file without an ending": ("README", 1),
  }
  flat = _reasons(tmp_path, nested=False)
  assert flat["a folder"] == ("x", 1)
  assert flat["a .bmp file"] == ("0001_c4.bmp", 1)


@pytest.fixture
def unreadable(monkeypatch) -> list[str]:
  """Names of folders that nobody may read, root neither."""
  names: list[str] = []
  scandir = os.scandir

  def refuse(folder):
    if os.path.basename(os.fspath(folder).rstrip("/")) in names:
      raise PermissionError(13, "Permission denied")
    return scandir(folder)

  monkeypatch.setattr(os, "scandir", refuse)
  return names


def test_folders_that_cannot_be_read_are_said(make_config, tmp_path, unreadable):
  write_images(tmp_path / "mine", ["train/a/0001_c1.jpg", "train/b/0002_c1.jpg", *_TEST])
  unreadable.append("b")
  listing = FolderListing(str(tmp_path / "mine" / "train"), nested=True)
  assert listing.paths == ["a/0001_c1.jpg"]
  assert [str(u) for u in listing.unused] == [
    f"{tmp_path}/mine/train/b: a folder that cannot be read (Permission denied), not used"
  ]
  unreadable.append("train")
  with pytest.raises(SourceError, match=r"train: cannot be read \(Permission denied\)"):
    dataset.load(_own(make_config))


def test_the_order_is_that_of_the_names_folder_by_folder(tmp_path):
  names = ["a.jpg", "a/c.jpg", "a/b/d.jpg", "a-b.jpg", "b.jpg", "a0/e.jpg"]
  write_images(tmp_path, names)
  paths = FolderListing(str(tmp_path), nested=True).paths
  assert paths == sorted(names, key=lambda name: name.split("/"))


@pytest.mark.parametrize("kind", ["market1501", "image_list/mine"])
def test_a_run_says_once_what_it_does_not_use(make_config, tmp_path, caplog, kind):
  is_own = kind == "image_list/mine"
  root = tmp_path / ("mine" if is_own else "Market-1501-v15.09.15")
  train, gallery = ("train", "gallery") if is_own else ("bounding_box_train", "bounding_box_test")
  images = [f"{train}/0001_c1s1_0.jpg", f"{train}/0001_c2s1_0.jpg"]
  write_images(root, [*images, "query/0007_c1s1_0.jpg", f"{gallery}/0007_c2s1_0.jpg"])
  for name in (f"{train}/0001_c3s1_0.bmp", f"{train}/0002_c1s1_0.bmp", f"{gallery}/.DS_Store"):
    (root / name).write_bytes(b"BM")
  config = _own(make_config, data__dataset=kind)
  with caplog.at_level(logging.WARNING, logger="absl"):
    assert _paths(dataset.load(config))[0] == images
  (line,) = [record.getMessage() for record in caplog.records if "not all files" in record.msg]
  assert f"{root / train}/0002_c1s1_0.bmp: all there is of person 2" in line
  assert f"{root / train}/0001_c3s1_0.bmp: a .bmp file, not used" in line
  assert "and 1 more" in line
  assert f"{root / gallery}/.DS_Store: hidden, not used" in line
  caplog.clear()
  with caplog.at_level(logging.WARNING, logger="absl"):
    dataset.load(config)
  assert sum("not all files" in record.msg for record in caplog.records) == 1


def test_of_two_folders_for_a_split_the_other_is_said(make_config, tmp_path):
  write_images(tmp_path / "mine", ["train/0001_c1.jpg", "bounding_box_train/0002_c1.jpg", *_TEST])
  builder = dataset.find_builder(_own(make_config))
  assert [image.path for image in builder.list_images("train", tmp_path)] == ["train/0001_c1.jpg"]
  (unused,) = builder.unused["train"]
  assert str(unused).endswith("bounding_box_train: a folder that is not used, since train is there")


@pytest.mark.parametrize("kind", ["market1501", "image_list/mine"])
def test_a_split_of_nothing_but_other_formats_is_named(make_config, tmp_path, kind):
  root = tmp_path / ("mine" if kind == "image_list/mine" else "Market-1501-v15.09.15")
  for folder in ("train", "bounding_box_train"):
    (root / folder).mkdir(parents=True)
    (root / folder / "0001_c1s1_0.bmp").write_bytes(b"BM")
  with pytest.raises(SourceMissingError, match=r"no images there \(but .*0001_c1s1_0\.bmp: "):
    dataset.load(_own(make_config, data__dataset=kind))
