"""Spoils a CUHK03-NP folder in every way that people's data sets are spoilt."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from magnifier_jax.data.inspection import Fault

Planted = set[tuple[Fault, str]]  # kind and name of the file that the finding must begin with


class Tree:
  """A CUHK03-NP folder with labeled boxes, which faults are planted in."""

  def __init__(self, root: Path):
    self._images = root / "cuhk03-np" / "labeled"
    self._labels = root / "cuhk03-np_ps_label" / "labeled"
    self._people = {
      folder: iter(sorted({file.name[:4] for file in (self._images / folder).iterdir()}))
      for folder in ("bounding_box_train", "query")
    }

  def next_person(self, folder: str = "bounding_box_train") -> list[Path]:
    """Returns the images of a person of a folder in whom no fault was planted yet."""
    return self.images(folder, next(self._people[folder]))

  def images(self, folder: str, person: str) -> list[Path]:
    """Returns the images of a person in a folder."""
    return sorted((self._images / folder).glob(f"{person}_*"))

  def labels(self, image: Path) -> Path:
    """Returns the part labels of an image."""
    return (self._labels / image.relative_to(self._images)).with_suffix(".png")

  def write(self, folder: str, name: str, size_hw: tuple[int, int] = (48, 20)) -> Path:
    """Writes noise and part labels under a name of no other image, or over one."""
    file = self._images / folder / name
    random = np.random.default_rng(list(name.encode()))
    Image.fromarray(random.integers(0, 256, (*size_hw, 3), np.uint8)).save(file)
    Image.fromarray(random.integers(0, 8, size_hw, np.uint8)).save(self.labels(file))
    return file


def plant(root: Path) -> Planted:
  """Plants more than 20 faults and returns what a check must find, no more and no less."""
  tree = Tree(root)
  planted: Planted = set()
  for spoil in (_truncate, _write_text, _save_as_bmp, _empty):
    planted.add((Fault.IMAGE, spoil(tree.next_person()[0])))
  planted.add((Fault.IMAGE, _truncate(tree.next_person("query")[0])))
  for spoil in (_remove, _crop, _put_eight, _put_colours, _truncate):
    image = tree.next_person()[0]
    spoil(tree.labels(image))
    fault = Fault.LABELS_MISSING if spoil is _remove else Fault.LABELS
    planted.add((fault, image.name if spoil is _remove else tree.labels(image).name))
  planted |= _plant_wrong_names(tree)
  for size_hw in ((30, 40), (20, 12), (40, 10), (300, 20)):
    image = tree.next_person()[0]
    planted.add((Fault.SIZE, tree.write(image.parent.name, image.name, size_hw).name))
  _, turned, labelled, *_ = tree.images(image.parent.name, image.name[:4])
  planted.add((Fault.TURNED, _turn_around(turned)))
  planted.add((Fault.LABELS, _flip_a_checksum(tree.labels(labelled))))
  planted |= _plant_duplicates(tree) | _plant_wrong_people(tree)
  return planted | _plant_unused(tree)


def _plant_wrong_names(tree: Tree) -> Planted:
  for folder in ("bounding_box_train", "bounding_box_test", "query"):
    tree.write(folder, f"IMG_{folder}.png")
  return {
    (Fault.NAME, f"IMG_{f}.png") for f in ("bounding_box_train", "bounding_box_test", "query")
  }


def _plant_duplicates(tree: Tree) -> Planted:
  image, other = tree.next_person()[0], tree.next_person("query")[0]
  same_person = image.with_name(f"{image.stem[:8]}99{image.suffix}")
  other_person = other.parents[1] / "bounding_box_test" / f"{other.name[:4]}_c1_98{image.suffix}"
  for copy in (same_person, other_person):
    shutil.copy(image, copy)
    shutil.copy(tree.labels(image), tree.labels(copy))
  return {(Fault.DUPLICATE, copy.name) for copy in (same_person, other_person)}


def _plant_unused(tree: Tree) -> Planted:
  pictures = [image.rename(image.with_suffix(".bmp")) for image in tree.next_person()]
  hidden = pictures[0].with_name(f"._{pictures[0].stem}.png")
  hidden.write_bytes(b"of another system")
  query = tree.next_person("query")[0]
  for file in (query, tree.labels(query)):
    shutil.copy(file, file.parents[1] / "bounding_box_test" / file.name)
  planted = {(Fault.LOST_PERSON, pictures[0].name), (Fault.UNUSED, pictures[0].name)}
  return planted | {(Fault.UNUSED, hidden.name), (Fault.IN_BOTH, query.name)}


def _plant_wrong_people(tree: Tree) -> Planted:
  alone, *others = tree.next_person()
  for image in others:
    image.unlink()
  planted = {(Fault.FEW_IMAGES, alone.name)}
  queries = tree.next_person("query")
  for image in tree.images("bounding_box_test", queries[0].name[:4]):
    image.unlink()
  planted |= {(Fault.NO_MATCH, query.name) for query in queries}
  queries = tree.next_person("query")
  for image in tree.images("bounding_box_test", queries[0].name[:4]):
    if "_c1_" not in image.name:
      image.unlink()
  planted |= {(Fault.NO_MATCH, query.name) for query in queries if "_c1_" in query.name}
  person = tree.next_person()[0].name[:4]
  tree.write("bounding_box_test", f"{person}_c2_97.png")
  return planted | {(Fault.TRAINED_ON, tree.write("query", f"{person}_c1_97.png").name)}


def _spoil(change: Callable[[Path], object]) -> Callable[[Path], str]:
  """Makes a change of a file return the file's name."""

  def spoil(file: Path) -> str:
    change(file)
    return file.name

  return spoil


_truncate = _spoil(lambda file: file.write_bytes(file.read_bytes()[:-200]))
_write_text = _spoil(lambda file: file.write_text("not found"))
_save_as_bmp = _spoil(lambda file: Image.open(file).save(file, "BMP"))
_empty = _spoil(lambda file: file.write_bytes(b""))
_remove = _spoil(Path.unlink)


@_spoil
def _turn_around(file: Path) -> None:
  exif = Image.Exif()
  exif[0x0112] = 3  # upside down, so the part labels keep their size
  Image.open(file).save(file, exif=exif)


@_spoil
def _flip_a_checksum(file: Path) -> None:
  content = bytearray(file.read_bytes())
  content[content.index(b"IEND") - 5] ^= 1  # the last byte of the pixels' checksum
  file.write_bytes(content)


def _relabel(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], str]:
  return _spoil(lambda file: Image.fromarray(change(np.array(Image.open(file)))).save(file))


_crop = _relabel(lambda labels: labels[:-1])
_put_eight = _relabel(lambda labels: np.where(labels == 3, 8, labels).astype(np.uint8))
_put_colours = _relabel(lambda labels: np.stack([labels] * 3, axis=-1))
