"""Embeds images with a trained network, and says whether two of them show the same person."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from magnifier_jax.errors import UserError
from magnifier_jax.evaluation.embedding import l2_normalize
from magnifier_jax.evaluation.thresholds import ThresholdError, Thresholds, from_json
from magnifier_jax.files.user_path import user_path
from magnifier_jax.retrieval.embedded import EmbeddedImages, branch_distances, concatenate
from magnifier_jax.retrieval.images import Failure, ImageInput, LoadedImage, load_ahead, num_threads
from magnifier_jax.retrieval.network import EmbeddingNetwork, name_of, open_network

BATCH_SIZE = 64
_SMALL_BATCH_SIZE = 8  # for what is left over, and for the boxes of a frame
_BATCHES_AHEAD = 2  # of decoded images


class ImageError(UserError):
  """An image, a frame or boxes that nothing can be done with."""


@dataclasses.dataclass(frozen=True)
class SamePerson:
  """Whether two images show the same person; true in a condition if they do.

  Attributes:
    same: whether the distance is below the threshold.
    distance: squared Euclidean, of the whole embeddings.
    threshold: likewise.
    false_accept_rate: that the threshold was calibrated for.
    true_accept_rate: that it had then.
    branch_distances: {branch: squared Euclidean distance}.
    calibrated_on: data set, people and numbers of pairs.
  """

  same: bool
  distance: float
  threshold: float
  false_accept_rate: float
  true_accept_rate: float
  branch_distances: Mapping[str, float]
  calibrated_on: str

  def __bool__(self) -> bool:
    return self.same


class Embedder:
  """Embeds any number of images with one network.

  Images run through the network in batches of at most three sizes, which are padded: so a network
  that must be compiled is compiled at most three times, whatever is embedded.

  Args:
    network: that embeds.
    batch_size: images that it is given at once.
    calibrated_on: data set of the thresholds; None for the run's own, or the only one.
  """

  def __init__(
    self,
    network: EmbeddingNetwork,
    batch_size: int = BATCH_SIZE,
    calibrated_on: str | None = None,
  ):
    if batch_size < 1:
      raise ImageError(f"batch_size: must be at least 1, got {batch_size}")
    self.network = network
    self._batch_size = batch_size
    self._calibrated_on = calibrated_on

  @property
  def thresholds(self) -> Thresholds:
    """The network's thresholds.

    Raises:
      ThresholdError: when it has none that fit its embeddings.
    """
    return thresholds_of(self.network.thresholds, name_of(self.network), self._calibrated_on)

  def embed(self, images: ImageInput | Iterable[ImageInput]) -> EmbeddedImages:
    """Embeds images; memory grows by their vectors alone.

    Args:
      images: paths of JPEG or PNG files, Pillow images or uint8 arrays, RGB (H, W, 3) or gray
        (H, W); one, several, or an iterator of them. EXIF orientations are applied.

    Returns:
      Their embeddings. Images that cannot be decoded are listed in `failed`, with the reason.
    """
    parts = list(self.stream(_one_or_several(images)))
    return concatenate(parts) if parts else self._result([], np.empty((0, self._width)), [])

  def stream(self, images: Iterable[ImageInput]) -> Iterator[EmbeddedImages]:
    """Embeds images a batch at a time, in constant memory.

    Args:
      images: as of `embed`; decoded in threads while the network runs.

    Yields:
      The embeddings of a batch, and the failures on the way to it.
    """
    ahead = max(_BATCHES_AHEAD * self._batch_size, 2 * num_threads())
    with concurrent.futures.ThreadPoolExecutor(1) as runner:
      running: concurrent.futures.Future[EmbeddedImages] | None = None
      for loaded, failed in self._batches(load_ahead(images, self.network.image_size_hw, ahead)):
        coming = runner.submit(self._run, loaded, failed)
        if running is not None:
          yield running.result()  # while the next batch is run
        running = coming
      if running is not None:
        yield running.result()

  def embed_boxes(
    self, frame: np.ndarray, boxes_xyxy: np.ndarray, color: Literal["rgb", "bgr"] = "rgb"
  ) -> EmbeddedImages:
    """Embeds the boxes of a video frame, as trackers want it.

    Args:
      frame: [H, W, 3] uint8.
      boxes_xyxy: [N, 4], left, top, right and bottom edge in pixels; clipped to the frame.
      color: order of the frame's channels; OpenCV's is 'bgr'.

    Returns:
      Embeddings whose `position` is the row of the box. Boxes without a pixel in the frame are
      listed in `failed`.

    Raises:
      ImageError: when the frame or the boxes have another shape or type.
    """
    frame, boxes = _checked_frame(frame, color), _checked_boxes(boxes_xyxy)
    crops = [_crop(frame, box) for box in boxes]
    found = [i for i, crop in enumerate(crops) if crop is not None]
    embedded = self.embed([crops[i] for i in found])
    failed = tuple(
      Failure(f"box {i}", f"no pixel of it is in the frame: {boxes[i].tolist()}")
      for i, crop in enumerate(crops)
      if crop is None
    )
    position = np.array(found, np.int64)[embedded.position]
    return dataclasses.replace(embedded, position=position, failed=failed + embedded.failed)

  def same_person(self, one: ImageInput, other: ImageInput, far: float = 1e-3) -> SamePerson:
    """Says whether two images show the same person.

    Args:
      one: an image, as of `embed`.
      other: likewise.
      far: the false-accept rate of the threshold: the share of pairs of different people, among
        those of the calibration, that are taken for one person.

    Raises:
      ThresholdError: when the network has no threshold for this rate.
      ImageError: when an image cannot be decoded.
    """
    thresholds = self.thresholds
    point = thresholds.at(far)
    embedded = self.embed([one, other])
    if embedded.failed:
      raise ImageError(str(embedded.failed[0]))
    first, second = embedded.whole
    distance = float(np.square(first - second).sum())
    by_branch = branch_distances(first, second[None], embedded.branch_widths)
    return SamePerson(
      same=distance < point.distance_threshold,
      distance=distance,
      threshold=point.distance_threshold,
      false_accept_rate=point.false_accept_rate,
      true_accept_rate=point.true_accept_rate,
      branch_distances={name: float(values[0]) for name, values in by_branch.items()},
      calibrated_on=thresholds.calibrated_on,
    )

  @property
  def _width(self) -> int:
    return sum(self.network.branches.values())

  def _batches(
    self, loaded: Iterable[LoadedImage | Failure]
  ) -> Iterator[tuple[list[LoadedImage], list[Failure]]]:
    """Yields batches that are full but for the last, each with the failures on the way to it."""
    batch: list[LoadedImage] = []
    failed: list[Failure] = []
    for image in loaded:
      if isinstance(image, Failure):
        failed.append(image)
        continue
      batch.append(image)
      if len(batch) == self._batch_size:
        yield batch, failed
        batch, failed = [], []
    if batch or failed:
      yield batch, failed

  def _run(self, batch: Sequence[LoadedImage], failed: Sequence[Failure]) -> EmbeddedImages:
    pieces, start = [], 0
    while start < len(batch):
      size = self._padded_size(len(batch) - start)
      piece = batch[start : start + size]
      images = np.empty((size, *self.network.image_size_hw, 3), np.uint8)
      np.stack([image.pixels for image in piece], out=images[: len(piece)])
      images[len(piece) :] = 0
      branches = self.network.embed_batch(images)
      whole = np.concatenate([branches[name] for name in self.network.branches], axis=1)
      pieces.append(whole[: len(piece)])
      start += size
    whole = np.concatenate(pieces) if pieces else np.empty((0, self._width))
    return self._result(batch, whole, failed)

  def _padded_size(self, count: int) -> int:
    """Returns how many images to run next, padding included, where `count` are left."""
    small = min(_SMALL_BATCH_SIZE, self._batch_size)
    if 2 * count > self._batch_size and count > small:
      return self._batch_size
    return small if count > 1 else 1

  def _result(
    self, batch: Sequence[LoadedImage], vectors: np.ndarray, failed: Sequence[Failure]
  ) -> EmbeddedImages:
    """Returns the embeddings of a batch; images without a direction are failures too."""
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    sound = np.isfinite(lengths) & (lengths > 0)
    lost = [
      Failure(
        image.path or f"image {image.position}", "the network gives NaN, infinity or zeros alone"
      )
      for image, is_sound in zip(batch, sound)
      if not is_sound
    ]
    kept = [image for image, is_sound in zip(batch, sound) if is_sound]
    return EmbeddedImages(
      whole=l2_normalize(vectors[sound]),
      branch_widths=dict(self.network.branches),
      position=np.array([image.position for image in kept], np.int64),
      path=tuple(image.path for image in kept),
      sha256=tuple(image.sha256 for image in kept),
      turned=np.array([image.turned for image in kept], bool),
      failed=(*failed, *lost),
      weights_sha256=self.network.weights_sha256,
    )


def load(
  source: str | os.PathLike[str],
  checkpoint: Literal["latest", "best"] = "latest",
  batch_size: int = BATCH_SIZE,
  calibrated_on: str | None = None,
) -> Embedder:
  """Opens a trained network to embed images with.

  Args:
    source: a workdir, a folder of `tools.export`, or its `model.onnx`.
    checkpoint: which of a workdir's; 'best' is by mAP.
    batch_size: images that run through the network at once.
    calibrated_on: data set of the thresholds, where the network was tested on several; None for
      that which it was trained on, or the only one.

  Raises:
    NetworkError, CheckpointError, ExportError: when there is no such network, or a damaged one.
  """
  network = open_network(user_path(os.fspath(source)), checkpoint)
  return Embedder(network, batch_size, calibrated_on)


def thresholds_of(
  content: Mapping[str, Any] | None, description: str, calibrated_on: str | None = None
) -> Thresholds:
  """Returns the thresholds of embeddings of single images, without their mirrored ones.

  Args:
    content: as in `metrics.json`; None where nobody calibrated them.
    description: of the network, for the message.
    calibrated_on: data set; None for the default, or the only one.

  Raises:
    ThresholdError: when there are none that fit.
  """
  if content is None:
    raise ThresholdError(
      f"{description}: it has no thresholds, since this checkpoint was not evaluated; run "
      "magnifier_jax.main --mode=evaluate on its workdir, and export it again if it is an exported "
      "one"
    )
  thresholds = from_json(content, description, calibrated_on)
  if thresholds.flip:
    raise ThresholdError(
      f"{description}: its thresholds are of images with their mirrored ones added; evaluate it "
      "with --config.evaluation.flip=False"
    )
  return thresholds


def _one_or_several(images: ImageInput | Iterable[ImageInput]) -> Iterable[ImageInput]:
  is_one = isinstance(images, str | os.PathLike | Image.Image)
  if isinstance(images, np.ndarray):
    is_one = images.ndim < 4
  return [images] if is_one else images


def _checked_frame(frame: np.ndarray, color: str) -> np.ndarray:
  if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
    kind = getattr(frame, "dtype", type(frame).__name__)
    raise ImageError(
      f"frame: [H, W, 3] uint8 is wanted, got {kind} of shape {getattr(frame, 'shape', None)}"
    )
  if frame.shape[2] != 3:
    raise ImageError(f"frame: [H, W, 3] uint8 is wanted, got uint8 of shape {frame.shape}")
  if color not in ("rgb", "bgr"):
    raise ImageError(f"color: 'rgb' or 'bgr' is wanted, got {color!r}")
  return frame if color == "rgb" else frame[..., ::-1]


def _checked_boxes(boxes: np.ndarray) -> np.ndarray:
  boxes = np.asarray(boxes, np.float64)
  if boxes.size == 0:
    return boxes.reshape(0, 4)
  if boxes.ndim != 2 or boxes.shape[1] != 4:
    raise ImageError(f"boxes_xyxy: [N, 4] is wanted, got shape {boxes.shape}")
  return boxes


def _crop(frame: np.ndarray, box: np.ndarray) -> np.ndarray | None:
  """Returns the pixels of a box; None where there are none."""
  if np.isnan(box).any():
    return None
  height, width = frame.shape[:2]
  left, top, right, bottom = np.rint(np.clip(box, 0, [width, height, width, height])).astype(int)
  if left >= right or top >= bottom:
    return None
  return frame[top:bottom, left:right]
