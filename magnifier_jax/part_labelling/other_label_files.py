"""Part labels from files in another layout or of other classes."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from magnifier_jax.data.image_files import load_part_labels
from magnifier_jax.data.records import SourceError
from magnifier_jax.part_labelling.class_maps import ClassMap
from magnifier_jax.part_labelling.labeller import LabellingError, LabelMethod, PersonImage
from magnifier_jax.part_labelling.score_grids import Box, classes_of_grid


class FileLabeller:
  """Takes the part labels of images from files: one-channel PNG, or `.npy` arrays (H, W).

  Args:
    folder: below which the files have the relative paths of the images, or the end of those, with
      or without the image's own ending.
    class_map: what becomes of the values in the files.
    scale: True: labels of another size than their image are brought to it by nearest neighbour.

  Raises:
    LabellingError: when there is no such folder.
  """

  batch_size = 1

  def __init__(self, folder: Path, class_map: ClassMap, scale: bool = False):
    if not folder.is_dir():
      raise LabellingError(f"--folder: no such folder: {folder}")
    self._folder, self._map, self._scale = folder, class_map, scale
    self._taken: dict[Path, str] = {}  # file → the image whose labels it is
    self.method = LabelMethod(
      "files", str(folder), "", {"classes": list(class_map.targets), "scale": scale}
    )

  def label(self, images: Sequence[PersonImage]) -> list[np.ndarray | None]:
    """See `PartLabeller`."""
    return [self._label(image) for image in images]

  def _label(self, image: PersonImage) -> np.ndarray | None:
    file = next(
      (
        file
        for file in self._candidates(image.path)
        if file.is_file() and not (image.file and file.samefile(image.file))
      ),
      None,
    )
    if file is None:
      return None
    other = self._taken.setdefault(file, image.path)
    if other != image.path:
      raise SourceError(
        f"{file}: fits {other}, which has it now, and {image.path}; name the files of both by "
        "their whole paths"
      )
    return self._map.parts(self._read(file, image.pixels.shape[:2]))

  def _candidates(self, path: str) -> Iterator[Path]:
    """Yields where the labels of an image may lie: the whole path first, the bare name last."""
    # A path can lead out of the data set's folder, but never out of this one.
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for start in range(len(parts)):
      place = self._folder.joinpath(*parts[start:])
      yield from (place.with_name(place.name + ending) for ending in (".png", ".npy"))
      yield from (place.with_suffix(ending) for ending in (".png", ".npy"))

  def _read(self, file: Path, size_hw: tuple[int, int]) -> np.ndarray:
    classes = load_part_labels(file)
    if classes.ndim != 2:
      raise SourceError(f"{file}: part labels must be of shape (H, W), these are {classes.shape}")
    strays = classes[(classes < 0) | (classes >= self._map.num_classes) | (classes % 1 != 0)]
    if strays.size:
      raise SourceError(
        f"{file}: class {strays[0]} found; {self._map.name} has 0…{self._map.num_classes - 1}"
      )
    classes = classes.astype(np.int64)
    if classes.shape == size_hw:
      return classes
    if not self._scale:
      raise SourceError(
        f"{file}: labels are {classes.shape[0]} × {classes.shape[1]} but the image is "
        f"{size_hw[0]} × {size_hw[1]} (height × width); --scale brings them to its size"
      )
    return classes_of_grid(classes, Box(0, 0, classes.shape[1], classes.shape[0]), size_hw)
