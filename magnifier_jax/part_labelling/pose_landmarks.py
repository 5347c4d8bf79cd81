"""Part labels from MediaPipe's pose network: 33 landmarks and a person mask.

The network is a TFLite file. MediaPipe's older wheels (0.10.21, for one) hold it, and it is read
straight out of one; MediaPipe itself is not needed. A box of a re-identification data set holds one
person who fills it, so there is no detector: the first look is at the whole box, the second at the
square that the first one found the person in, as MediaPipe follows a person from frame to frame.
"""

import hashlib
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.special import expit

from magnifier_jax.data.tensorflow_on_cpu import tf
from magnifier_jax.part_labelling.body_geometry import NUM_LANDMARKS, Pose, draw_parts
from magnifier_jax.part_labelling.labeller import (
  LabellingError,
  LabelMethod,
  PersonImage,
  read_model,
)

_IN_WHEEL = tuple(
  f"mediapipe/modules/pose_landmark/pose_landmark_{size}.tflite"
  for size in ("heavy", "full", "lite")
)
# Two more landmarks are the middle of the hips and a point on the circle around the person.
_CENTRE, _ON_CIRCLE = 33, 34
_MARGIN = 1.25  # side of the square that is looked at, per height or diameter of the person
_MIN_SIDE = 8.0  # pixels
_PERSON_SCORE = 0.5
_MASK_SCORE = 0.5


class _Square(NamedTuple):
  """The part of an image that the network looks at, pixels."""

  left: float
  top: float
  side: float

  @classmethod
  def around(cls, centre_xy: np.ndarray, side: float) -> "_Square":
    side = max(side, _MIN_SIDE)
    return cls(float(centre_xy[0]) - side / 2, float(centre_xy[1]) - side / 2, side)


class _Look(NamedTuple):
  """What the network saw in a square."""

  points_xy: np.ndarray  # (39, 2) float32, pixels of the image
  visibility: np.ndarray  # (33,) float32
  score: float  # that there is a person
  mask: np.ndarray  # (h, w) float32, of the square


class PoseLabeller:
  """Labels images with a pose network and the geometry of a body.

  Args:
    model: `pose_landmark_*.tflite`, or a wheel of MediaPipe that holds one.

  Raises:
    LabellingError: when there is no such network in the file.
  """

  batch_size = 1

  def __init__(self, model: Path):
    content = _read_network(model)
    self._interpreter = _interpreter(content, model)
    self._input = self._interpreter.get_input_details()[0]
    self.method = LabelMethod("pose", str(model), hashlib.sha256(content).hexdigest(), {})

  def label(self, images: Sequence[PersonImage]) -> list[np.ndarray | None]:
    """See `PartLabeller`."""
    return [self._label(image.pixels) for image in images]

  def _label(self, pixels: np.ndarray) -> np.ndarray | None:
    image = Image.fromarray(pixels)
    size = np.array(image.size)
    square = _Square.around(size / 2, _MARGIN * size.max())
    look = self._look(image, square)
    radius = np.linalg.norm(look.points_xy[_ON_CIRCLE] - look.points_xy[_CENTRE])
    nearer = _Square.around(look.points_xy[_CENTRE], _MARGIN * 2 * float(radius))
    second_look = self._look(image, nearer)
    if second_look.score >= _PERSON_SCORE:
      look, square = second_look, nearer
    if look.score < _PERSON_SCORE:
      return None
    scale = look.mask.shape[0] / square.side
    mask = _cut(
      Image.fromarray(look.mask), -square.left * scale, -square.top * scale, scale, image.size
    )
    pose = Pose(look.points_xy[:NUM_LANDMARKS], look.visibility)
    parts = draw_parts(pose, np.asarray(mask) > _MASK_SCORE)
    return parts if parts.any() else None

  def _look(self, image: Image.Image, square: _Square) -> _Look:
    side = int(self._input["shape"][1])
    cut = _cut(image, square.left, square.top, square.side / side, (side, side))
    picture = np.asarray(cut, np.float32) / 255
    self._interpreter.set_tensor(self._input["index"], picture[None])
    self._interpreter.invoke()
    landmarks, score, mask = (
      self._interpreter.get_tensor(output["index"])[0]
      for output in self._interpreter.get_output_details()[:3]
    )
    landmarks = landmarks.reshape(-1, 5)  # x, y, z, visibility, presence
    corner = np.array([square.left, square.top])
    return _Look(
      points_xy=(landmarks[:, :2] * (square.side / side) + corner).astype(np.float32),
      visibility=expit(landmarks[:NUM_LANDMARKS, 3]),
      score=float(score[0]),
      mask=expit(mask[..., 0]),
    )


def _read_network(model: Path) -> bytes:
  """Returns the TFLite file, from a wheel where it lies in one."""
  content = read_model(model, "--model")
  if not zipfile.is_zipfile(model):
    return content
  with zipfile.ZipFile(model) as wheel:
    name = next((name for name in _IN_WHEEL if name in wheel.namelist()), None)
    if name is None:
      raise LabellingError(
        f"--model: {model} holds no pose_landmark_*.tflite; MediaPipe 0.10.21's wheel does: "
        "pip download --no-deps mediapipe==0.10.21"
      )
    return wheel.read(name)


def _interpreter(content: bytes, model: Path) -> "tf.lite.Interpreter":
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that the interpreter will move to another package
    try:
      interpreter = tf.lite.Interpreter(model_content=content, num_threads=os.cpu_count())
      interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
      raise LabellingError(f"--model: {model} is not a readable TFLite file") from error
  inputs, outputs = (
    [tuple(map(int, tensor["shape"])) for tensor in details]
    for details in (interpreter.get_input_details(), interpreter.get_output_details())
  )
  side = inputs[0][1] if inputs and len(inputs[0]) == 4 else 0
  if inputs != [(1, side, side, 3)] or outputs[:3] != [(1, 195), (1, 1), (1, side, side, 1)]:
    raise LabellingError(
      f"--model: {model} is not MediaPipe's pose landmark network; it takes {inputs} and gives "
      f"{outputs}"
    )
  return interpreter


def _cut(
  image: Image.Image, left: float, top: float, scale: float, size_wh: tuple[int, int]
) -> Image.Image:
  """Returns the part of an image from a corner on, `scale` pixels a new one; black outside."""
  matrix = (scale, 0, left, 0, scale, top)
  return image.transform(size_wh, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
