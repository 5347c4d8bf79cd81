"""Making part labels changes no file but labels, wherever a data set's images lie."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magnifier_jax.data.datasets.file_builder import FileSource
from magnifier_jax.data.datasets.image_list import ImageList
from magnifier_jax.data.part_label_files import clashing_names, label_name
from magnifier_jax.tools import check_data, label_parts

_SIZE_HW = (64, 32)
_TRAIN = [f"train/{person:04d}_c{camera}_0" for person in (1, 2) for camera in (1, 2)]
_TEST = {"query": "query/0007_c1_0", "gallery": "gallery/0007_c2_0"}
_NAMES = [*_TRAIN, *_TEST.values()]


def _write(file: Path, *shape: int, values: int = 256) -> None:
  file.parent.mkdir(parents=True, exist_ok=True)
  random = np.random.default_rng(list(str(file).encode()))
  Image.fromarray(random.integers(0, values, shape or (*_SIZE_HW, 3), np.uint8)).save(file)


def _list(root: Path, listed: Callable[[str], str]) -> None:
  """Writes my_images/images.csv; `listed` makes a path of the table from a name."""
  rows = ["image,person,camera,split"]
  for name in _NAMES:
    split, _, file = name.partition("/")
    rows.append(f"{listed(name)},{int(file[:4])},{file[6]},{split}")
  (root / "my_images").mkdir(exist_ok=True)
  (root / "my_images" / "images.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
  """Photographs in `crops` and in `my_images`, and masks of all of them in `masks`."""
  for name in _NAMES:
    _write(tmp_path / "crops" / f"{name}.png")
    _write(tmp_path / "masks" / f"{name}.png", *_SIZE_HW, values=8)
  return tmp_path


def _arguments(root: Path, *more: str) -> list[str]:
  repository = Path(__file__).parents[2]
  return [
    f"--config={repository / 'configs' / 'custom.py'}:small",
    f"--config.data.manual_dir={root}",
    "--config.data.identities_per_batch=2",
    *more,
  ]


def _label(root: Path, *more: str) -> int:
  options = _arguments(root, f"--folder={root / 'masks'}", "--splits=train,query,gallery", *more)
  return label_parts.main(["files", *options])


def _contents(folder: Path) -> dict[str, bytes]:
  files = [Path(top, name) for top, _, names in os.walk(folder) for name in names]
  return {str(file): file.read_bytes() for file in files}


def _labels_by_image(root: Path) -> dict[str, Path]:
  """Returns the labels that training reads, by the image's name in `_NAMES`."""
  builder = ImageList(folder="my_images", data_dir=root / "prepared")
  sources = [s for split in ("train", "query", "gallery") for s in builder.sources(split, root)]
  return {_name(s): s.part_labels and Path(s.part_labels) for s in sources}


def _name(source: FileSource) -> str:
  return "/".join(Path(source.image.path).with_suffix("").parts[-2:])


_OUTSIDE = {
  "beside": lambda root: lambda name: f"../crops/{name}.png",
  "absolute": lambda root: lambda name: f"{root}/crops/{name}.png",
  "back again": lambda root: lambda name: f"../my_images/../crops/{name}.png",
}


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("where", _OUTSIDE)
def test_images_outside_the_folder_have_labels_inside_that_of_labels(root, where, overwrite):
  _list(root, _OUTSIDE[where](root))
  photographs = _contents(root / "crops")
  assert _label(root, *overwrite) == 0
  assert _contents(root / "crops") == photographs
  labels = _labels_by_image(root)
  assert len(set(labels.values())) == len(_NAMES)
  for name, file in labels.items():
    assert (root / "my_images_ps_label").resolve() in file.resolve().parents
    assert Path(name).stem in file.name
    expected = Image.open(root / "masks" / f"{name}.png")
    np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(expected))


@pytest.mark.parametrize("where", _OUTSIDE)
def test_a_photograph_is_never_taken_for_its_own_labels(root, where, capsys):
  _list(root, _OUTSIDE[where](root))
  labels = _labels_by_image(root)
  assert set(labels.values()) == {None}
  page = f"--page={root / 'page.html'}"
  assert check_data.main(_arguments(root, page)) == 1
  assert f"missing part labels: {len(_TRAIN)}" in capsys.readouterr().out
  policy = "--config.data.missing_part_labels=bands"
  assert check_data.main(_arguments(root, page, policy)) == 0


def test_masks_are_not_looked_for_outside_their_folder(root, capsys):
  """`masks/../crops/…` is the photograph, and so is `masks` joined to an absolute path."""
  for where in ("beside", "absolute"):
    _list(root, _OUTSIDE[where](root))
    for mask in (root / "masks").rglob("*.png"):
      mask.unlink()
    assert _label(root) == 1
    output = capsys.readouterr().out
    assert f"nothing was found in {len(_TRAIN)}" in output
    assert "unreadable" not in output


def test_gray_photographs_are_not_their_own_masks(root):
  """Dark ones even have the values of labels."""
  _list(root, lambda name: f"{name}.png")
  for name in _NAMES:
    _write(root / "my_images" / f"{name}.png", *_SIZE_HW, values=8)
  assert label_parts.main(["files", *_arguments(root, f"--folder={root / 'my_images'}")]) == 1
  assert not list(root.glob("my_images_ps_label/**/*.png"))


def test_linked_folders_of_photographs_have_labels_of_their_own(root):
  (root / "my_images").mkdir()
  for split in ("train", "query", "gallery"):
    (root / "my_images" / split).symlink_to(root / "crops" / split)
  _list(root, lambda name: f"{name}.png")
  photographs = _contents(root / "crops")
  assert _label(root, "--overwrite") == 0
  assert _contents(root / "crops") == photographs
  assert len(list((root / "my_images_ps_label").rglob("*.png"))) == len(_NAMES)


@pytest.mark.parametrize("link", ["", "train"])
def test_a_folder_of_labels_that_is_a_link_to_photographs_is_refused(root, link):
  _list(root, lambda name: f"{name}.png")
  (root / "crops").rename(root / "crops_")
  (root / "my_images" / "images.csv").rename(root / "crops_" / "images.csv")
  (root / "my_images").rmdir()
  (root / "crops_").rename(root / "my_images")
  labels = root / "my_images_ps_label" / link
  labels.parent.mkdir(exist_ok=True)
  labels.symlink_to(root / "my_images" / link)
  photographs = _contents(root / "my_images")
  with pytest.raises(ValueError, match=r"photographs lie there, .* another folder with --to"):
    _label(root, "--overwrite")
  assert _contents(root / "my_images") == photographs


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("to", ["my_images", "my_images/train", "my_images/train/labels", "other"])
def test_labels_do_not_get_among_photographs(root, to, ending):
  for name in _NAMES:
    for folder in ("my_images", "other"):
      _write(root / folder / f"{name}{ending}")
  photographs = {folder: _contents(root / folder) for folder in ("my_images", "other")}
  with pytest.raises(ValueError, match=r"photographs lie there, .* another folder with --to"):
    _label(root, "--overwrite", f"--to={root / to}")
  assert {folder: _contents(root / folder) for folder in photographs} == photographs


_NO_LABELS = {
  "colours": lambda file: _write(file),
  "gray": lambda file: _write(file, *_SIZE_HW),
  "text": lambda file: file.write_text("a diary"),
  "folder": lambda file: file.mkdir(),
  "broken link": lambda file: file.symlink_to("nowhere"),
}


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("kind", _NO_LABELS)
def test_what_is_no_labels_stays_where_labels_belong(root, kind, overwrite, capsys):
  for name in _NAMES:
    _write(root / "my_images" / f"{name}.jpg")
  file = root / "my_images_ps_label" / f"{_TRAIN[1]}.png"
  file.parent.mkdir(parents=True)
  _NO_LABELS[kind](file)
  before = file.lstat(), _contents(file.parent) if kind != "broken link" else None
  assert _label(root, *overwrite) == 1
  output = capsys.readouterr().out
  assert f"train: {len(_TRAIN) - 1} of {len(_TRAIN)} images have part labels" in output
  assert f"not part labels, and left as they are; move them away: 1:\n    {file}" in output
  assert file.lstat().st_ino == before[0].st_ino
  assert before[1] is None or before[1].items() <= _contents(file.parent).items()


def test_labels_that_were_given_or_made_are_replaced_when_asked(root):
  for name in _NAMES:
    _write(root / "my_images" / f"{name}.jpg")
  given = root / "my_images_ps_label" / f"{_TRAIN[0]}.png"
  _write(given, *_SIZE_HW, values=8)
  before = given.read_bytes()
  assert _label(root) == 0
  assert given.read_bytes() == before
  for mask in (root / "masks").rglob("*.png"):
    Image.fromarray(np.full(_SIZE_HW, 5, np.uint8)).save(mask)
  assert _label(root, "--overwrite", "--scale") == 0  # --scale makes it another method
  assert {int(np.asarray(Image.open(file)).max()) for file in given.parent.glob("*.png")} == {5}


def test_a_dark_gray_photograph_with_the_values_of_labels_stays(root):
  """What a table lists as an image is one, whatever its pixels are."""
  (root / "my_images").mkdir()
  dark = root / "my_images_ps_label" / f"{_TRAIN[0]}.png"
  _write(dark, *_SIZE_HW, values=8)
  rows = (f"../my_images_ps_label/{_TRAIN[0]}.png,5,1,gallery", f"{_TRAIN[0]}.jpg,1,1,train")
  table = "\n".join(("image,person,camera,split", *rows, f"{_TEST['query']}.jpg,5,2,query"))
  (root / "my_images" / "images.csv").write_text(table)
  _write(root / "my_images" / f"{_TRAIN[0]}.jpg")
  _write(root / "my_images" / f"{_TEST['query']}.jpg")
  before = dark.read_bytes()
  with pytest.raises(ValueError, match="photographs lie there"):
    _label(root, "--overwrite")
  linked = root / "elsewhere" / f"{_TRAIN[0]}.png"
  linked.parent.mkdir(parents=True)
  os.link(dark, linked)  # the same file in another folder
  assert _label(root, "--overwrite", f"--to={root / 'elsewhere'}") == 1
  assert dark.read_bytes() == linked.read_bytes() == before


def test_files_of_one_name_but_for_the_ending_have_labels_of_their_own(root):
  for ending in (".jpg", ".png"):
    _write(root / "my_images" / f"{_TRAIN[0]}{ending}")
  for name in _TEST.values():
    _write(root / "my_images" / f"{name}.jpg")
  for part, ending in enumerate((".jpg", ".png"), start=1):
    file = root / "masks" / f"{_TRAIN[0]}{ending}.png"
    Image.fromarray(np.full(_SIZE_HW, part, np.uint8)).save(file)
  assert _label(root) == 0
  sources = ImageList(folder="my_images", data_dir=root / "prepared").sources("train", root)
  parts = {
    Path(s.image.file).suffix: int(np.asarray(Image.open(s.part_labels)).max()) for s in sources
  }
  assert parts == {".jpg": 1, ".png": 2}


def test_a_mask_that_fits_two_images_is_not_given_to_both(root, capsys):
  for camera in ("left", "right"):
    _write(root / "my_images" / "train" / camera / "0001_c1_0.jpg")
  for name in _TEST.values():
    _write(root / "my_images" / f"{name}.jpg")
  assert label_parts.main(["files", *_arguments(root, f"--folder={root / 'masks' / 'train'}")]) == 1
  assert "fits train/left/0001_c1_0.jpg, which has it now, and train/right" in (
    capsys.readouterr().out
  )


def test_a_file_that_is_no_record_stays(root):
  for name in _NAMES:
    _write(root / "my_images" / f"{name}.jpg")
  record = root / "my_images_ps_label" / "label_parts.jsonl"
  record.parent.mkdir()
  record.write_text("notes about labels, without an end of line")
  with pytest.raises(ValueError, match=r"label_parts.jsonl: not a record of part labels"):
    _label(root, "--overwrite")
  assert record.read_text() == "notes about labels, without an end of line"


def test_two_images_never_share_labels():
  paths = ["a.jpg", "a.png", "a.jpg.jpg", "a", "b.jpg", "../a.jpg", "../b.jpg", "/a.jpg", "//a.jpg"]
  paths += ["x/../a.jpg", "x/a.jpg", "/x/a.jpg", "../x/a.jpg", "../../x/a.jpg", "_elsewhere/a.jpg"]
  own = [label_name(path) for path in ("../a.jpg", "/a.jpg")]
  paths += [own[0], own[1], own[0].removesuffix(".png") + ".jpg", "a.b.jpg", "a.b.png", "é.jpg"]
  paths += ["very/" + "long" * 60 + ".jpg", "../" + "long" * 60 + ".jpg"]
  clashes = clashing_names(paths)
  names = [label_name(path, clashes) for path in paths]
  different = {"/a.jpg" if path == "//a.jpg" else path for path in paths}  # one file, as on Unix
  assert len(set(names)) == len(different)
  for name in names:
    assert ".." not in name.split("/")
    assert not name.startswith("/")
    assert max(len(os.fsencode(part)) for part in name.split("/")) <= 255


def test_one_image_has_one_place_however_its_path_is_written():
  paths = ["x/a.jpg", "./x/a.jpg", "x//a.jpg", "x/./a.jpg"]
  clashes = clashing_names(paths)
  assert {label_name(path, clashes) for path in paths} == {"x/a.png"}
