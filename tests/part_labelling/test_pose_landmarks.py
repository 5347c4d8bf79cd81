"""Part labels from a pose network: a stand-in with fixed answers, and MediaPipe's where it is."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magnifier_jax.data.tensorflow_on_cpu import tf
from magnifier_jax.part_labelling.body_geometry import draw_parts
from magnifier_jax.part_labelling.labeller import LabellingError, PersonImage
from magnifier_jax.part_labelling.pose_landmarks import PoseLabeller

from . import standing_person

_SIDE = 256
_MODEL_VARIABLE = "POSE_MODEL"  # MediaPipe's wheel, or pose_landmark_*.tflite
_MEMBER = "mediapipe/modules/pose_landmark/pose_landmark_lite.tflite"


def _write_network(file: Path, score: float = 1.0, radius: float = 50) -> Path:
  """Writes a network that sees the standing person wherever it looks, 200 pixels tall."""
  points = np.concatenate(
    [standing_person.pose().points_xy, [(20, 50), (20, 50 - radius)], np.zeros((4, 2))]
  )  # the middle of the hips, a point on the circle around the person, what is of no use here
  landmarks = np.zeros((39, 5), np.float32)
  landmarks[:, :2] = 2 * points + [_SIDE / 2 - 40, _SIDE / 2 - 100]
  landmarks[:, 3] = 5  # visible
  seen = standing_person.mask().repeat(2, 0).repeat(2, 1)
  mask = np.full((1, _SIDE, _SIDE, 1), -9, np.float32)
  top, left = _SIDE // 2 - 100, _SIDE // 2 - 40
  mask[0, top : top + 200, left : left + 80, 0] = np.where(seen, 9, -9)

  @tf.function(input_signature=[tf.TensorSpec((1, _SIDE, _SIDE, 3), tf.float32)])
  def network(image: tf.Tensor) -> tuple[tf.Tensor, ...]:
    zero = 0 * tf.reduce_sum(image)
    return landmarks.reshape(1, -1) + zero, np.float32([[score]]) + zero, mask + zero

  converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()])
  file.write_bytes(converter.convert())
  return file


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
  return _write_network(tmp_path_factory.mktemp("pose") / "pose_landmark_full.tflite")


def _label(model: Path, pixels: np.ndarray) -> np.ndarray | None:
  (parts,) = PoseLabeller(model).label([PersonImage("x.png", pixels)])
  return parts


def test_what_the_network_sees_is_brought_back_to_the_image(network: Path):
  # The second look is at a square of about 1.25 times the height that the first one found.
  parts = _label(network, np.zeros((*standing_person.SIZE_HW, 3), np.uint8))
  expected = draw_parts(standing_person.pose(), standing_person.mask())
  assert parts.shape == expected.shape
  assert (parts == expected).mean() > 0.9
  assert set(np.unique(parts)) == set(range(8))


def test_the_second_look_is_at_the_circle_that_the_first_one_found(tmp_path):
  model = _write_network(tmp_path / "half.tflite", radius=25)
  parts = _label(model, np.zeros((*standing_person.SIZE_HW, 3), np.uint8))
  rows, columns = np.nonzero(parts)
  person_rows, person_columns = np.nonzero(standing_person.mask())
  # The square has half the side, so whoever fills it as before is half as tall and wide.
  assert np.ptp(rows) / np.ptp(person_rows) == pytest.approx(0.5, abs=0.06)
  assert np.ptp(columns) / np.ptp(person_columns) == pytest.approx(0.5, abs=0.06)
  assert rows.mean() == pytest.approx(50, abs=3)


def test_a_network_inside_a_wheel_is_found(network: Path, tmp_path):
  wheel = tmp_path / "mediapipe.whl"
  with zipfile.ZipFile(wheel, "w") as archive:
    archive.write(network, _MEMBER)
  assert PoseLabeller(wheel).method.sha256 == PoseLabeller(network).method.sha256


def test_no_person_no_labels(tmp_path):
  model = _write_network(tmp_path / "nobody.tflite", score=0.1)
  assert _label(model, np.zeros((50, 20, 3), np.uint8)) is None


def test_files_without_the_network_are_named(tmp_path):
  text, wheel, missing = (tmp_path / name for name in ("x.tflite", "x.whl", "missing.tflite"))
  text.write_text("no network")
  with zipfile.ZipFile(wheel, "w") as archive:
    archive.writestr("mediapipe/__init__.py", "")
  with pytest.raises(LabellingError, match=r"x\.tflite is not a readable TFLite file"):
    PoseLabeller(text)
  with pytest.raises(LabellingError, match=r"x\.whl holds no pose_landmark_\*\.tflite"):
    PoseLabeller(wheel)
  with pytest.raises(LabellingError, match=r"--model: .*missing\.tflite cannot be read"):
    PoseLabeller(missing)


def test_another_network_is_named(tmp_path):
  @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)])
  def double(image: tf.Tensor) -> tf.Tensor:
    return 2 * image

  file = tmp_path / "double.tflite"
  converter = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()])
  file.write_bytes(converter.convert())
  with pytest.raises(LabellingError, match="is not MediaPipe's pose landmark network"):
    PoseLabeller(file)


def test_real_images_get_labels_like_the_given_ones(real_data: Path):
  model = os.environ.get(_MODEL_VARIABLE)
  if model is None:
    pytest.skip(f"{_MODEL_VARIABLE} names no wheel of MediaPipe")
  labeller = PoseLabeller(Path(model))
  files = sorted((real_data / "cuhk03-np" / "labeled" / "query").glob("*.jpg"))[::100]
  same = total = 0
  for file in files:
    given = real_data / "cuhk03-np_ps_label" / "labeled" / "query" / f"{file.stem}.png"
    pixels = np.asarray(Image.open(file).convert("RGB"))
    (parts,) = labeller.label([PersonImage(file.name, pixels)])
    same += (parts == np.asarray(Image.open(given))).sum()
    total += parts.size
  assert same / total > 0.75
