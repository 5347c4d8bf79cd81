"""The drawn pedestrians: deterministic, exactly labelled, and not told apart by colour alone."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from magnifier_jax.body_parts import (
  BACKGROUND,
  FOOT,
  HEAD,
  LOWER_ARM,
  LOWER_LEG,
  PART_NAMES,
  TORSO,
  UPPER_ARM,
  UPPER_LEG,
)
from magnifier_jax.data.synthetic.appearance import Fabric, Layer
from magnifier_jax.data.synthetic.body import Pose, View, paint, posed_tubes
from magnifier_jax.data.synthetic.cameras import CAMERAS, backdrop, develop, occlude
from magnifier_jax.data.synthetic.pedestrians import Pedestrian, draw_pedestrian, person_of

STANDING = Pose(phase=0.0, stride=0.1, elbow_bend=0.1, arm_spread=0.2, lean=0.0)
FACING = View(yaw=0.0, pitch=0.1, perspective=0.0, pixels_per_metre=120.0, ground_xy=(64, 245))
PLAIN = {"bag": "none", "upper_pattern": "plain", "hat": "none", "coat_length": 0.0}


def _looks(person_id: int = 1, **looks: object):
  person = person_of(0, person_id)
  return person.__class__(**{**vars(person), **PLAIN, **looks})


def _painted(person, view: View = FACING) -> Pedestrian:
  image, labels = np.full((256, 128, 3), 255, np.uint8), np.zeros((256, 128), np.uint8)
  paint(image, labels, posed_tubes(person, STANDING, view))
  return Pedestrian(image, labels)


def test_part_numbers_are_those_of_the_project():
  numbers = (BACKGROUND, HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG, FOOT)
  names = "background head torso upper_arm lower_arm upper_leg lower_leg foot"
  assert [PART_NAMES[n].replace(" ", "_") for n in numbers] == names.split()


def test_a_picture_is_a_function_of_its_four_numbers():
  first = draw_pedestrian(3, 7, 1, 2)
  draw_pedestrian(3, 8, 1, 2)
  again = draw_pedestrian(3, 7, 1, 2)
  np.testing.assert_array_equal(first.image, again.image)
  np.testing.assert_array_equal(first.part_labels, again.part_labels)
  for other in ((4, 7, 1, 2), (3, 8, 1, 2), (3, 7, 2, 2), (3, 7, 1, 3)):
    assert not np.array_equal(draw_pedestrian(*other).image, first.image), other


def test_a_person_looks_the_same_whatever_the_picture():
  assert person_of(0, 5) == person_of(0, 5)
  assert len({person_of(0, person_id) for person_id in range(200)}) == 200


def test_pictures_are_rgb_with_labels_of_the_same_size():
  for camera in range(len(CAMERAS)):
    drawn = draw_pedestrian(0, 1, camera, 0)
    height, width = drawn.part_labels.shape
    assert drawn.image.shape == (height, width, 3)
    assert drawn.image.dtype == drawn.part_labels.dtype == np.uint8
    assert 95 <= height <= 184
    assert 0.4 < width / height < 0.56


def test_every_part_is_usually_seen_and_in_its_place():
  drawn = [draw_pedestrian(0, person_id, person_id % 3, 0).part_labels for person_id in range(60)]
  seen = np.array([[(labels == part).any() for part in range(8)] for labels in drawn])
  assert (seen.mean(axis=0) > 0.8).all(), seen.mean(axis=0)
  assert max(labels.max() for labels in drawn) == 7
  whole = [labels for labels in drawn if len(np.unique(labels)) == 8]
  middle = np.array(
    [[np.argwhere(labels == part)[:, 0].mean() for part in range(8)] for labels in whole]
  )
  down = (HEAD, TORSO, UPPER_LEG, LOWER_LEG, FOOT)
  for upper, lower in itertools.pairwise(down):
    # Something in front may hide most of a part, so not in every picture.
    assert (middle[:, upper] < middle[:, lower]).mean() > 0.95


def test_labels_cover_exactly_the_painted_pixels():
  drawn = _painted(_looks())
  np.testing.assert_array_equal(drawn.part_labels > 0, (drawn.image != 255).any(axis=-1))


def test_labels_carry_the_colour_of_their_part():
  white, red = (255, 255, 255), (255, 0, 0)
  person = _looks(
    skin=white,
    hair_style="bald",
    sleeves="long",
    lower_garment="trousers",
    upper_color=red,
    lower_color=white,
    lower_pattern="plain",
    shoe_color=white,
  )
  drawn = _painted(person)
  is_red = drawn.image[..., 1] == 0
  assert is_red[drawn.part_labels == TORSO].all()
  assert is_red[drawn.part_labels == UPPER_ARM].all()
  assert 0.3 < is_red[drawn.part_labels == LOWER_ARM].mean() < 1  # the hand is bare
  for part in (UPPER_LEG, LOWER_LEG, FOOT):
    assert not is_red[drawn.part_labels == part].any()


def test_somebody_else_in_front_is_background():
  drawn = _painted(_looks())
  labels = drawn.part_labels.copy()
  paint(drawn.image, labels, posed_tubes(_looks(2), STANDING, FACING), labelled=False)
  hidden = _painted(_looks(2)).part_labels > 0
  assert not labels[hidden].any()
  np.testing.assert_array_equal(labels[~hidden], drawn.part_labels[~hidden])


def test_a_backpack_shows_its_straps_in_front_and_hides_the_torso_behind():
  plain, carrying = _looks(), _looks(bag="backpack", bag_color=(0, 255, 0))

  def torso_and_green(view: View) -> tuple[float, int]:
    drawn = _painted(carrying, view)
    torso = (drawn.part_labels == TORSO).sum() / (_painted(plain, view).part_labels == TORSO).sum()
    return torso, int((drawn.image[..., 0] == 0).sum())

  front_torso, straps = torso_and_green(FACING)
  back_torso, sack = torso_and_green(FACING._replace(yaw=np.pi))
  assert front_torso > 0.95
  assert back_torso < 0.6
  assert 50 < straps < sack / 2


@pytest.mark.parametrize(("pattern", "yaw"), [("front_print", 0.0), ("back_print", np.pi)])
def test_a_print_is_seen_from_its_own_side_only(pattern, yaw):
  fabric = Fabric((0, 0, 0), (Layer(pattern, (255, 255, 255)),))
  angle, height = np.meshgrid(np.linspace(-1.4, 1.4, 40), np.linspace(0, 0.5, 40))

  def share(view_yaw: float) -> float:
    seen = (angle - view_yaw + np.pi) % (2 * np.pi) - np.pi
    return float(fabric.colors(seen.ravel(), height.ravel()).mean())

  assert share(yaw) > 5
  assert share(yaw + np.pi) == 0


def test_an_occluder_is_background_and_changes_nothing_beside_it():
  for seed in range(20):
    image, labels = np.zeros((144, 72, 3), np.uint8), np.ones((144, 72), np.uint8)
    occlude(image, labels, np.random.default_rng(seed))
    np.testing.assert_array_equal(labels == 0, image.any(axis=-1))
    assert 0.005 < (labels == 0).mean() < 0.7


def test_cameras_disagree_on_colour_and_scene():
  gray = np.full((64, 32, 3), 128, np.uint8)

  def usual(camera: int) -> np.ndarray:
    developed = [
      develop(gray, CAMERAS[camera], np.random.default_rng(n)).mean((0, 1)) for n in range(30)
    ]
    return np.mean(developed, axis=0)

  colors = [usual(camera) for camera in range(len(CAMERAS))]
  scenes = [
    backdrop(0, camera, (64, 32), np.random.default_rng(0)).astype(float)
    for camera in range(len(CAMERAS))
  ]
  for one in range(len(CAMERAS)):
    for other in range(one):
      assert np.abs(colors[one] - colors[other]).max() > 5, (one, other)
      assert np.abs(scenes[one] - scenes[other]).mean() > 5, (one, other)


@pytest.fixture(scope="module")
def shots_of_test_people() -> list[tuple[int, int, int, Pedestrian]]:
  """The pictures of the test people of `synthetic_reid/small`: person, camera, number, picture."""
  return [
    (person_id, camera, number, draw_pedestrian(0, person_id, camera, number))
    for person_id in range(121, 181)
    for camera in range(3)
    for number in range(4)
  ]


def _mean_average_precision(shots: list, embed: Callable[[Pedestrian], np.ndarray]) -> float:
  """mAP in percent; a query ignores the same person's pictures by the same camera."""
  person, camera, number = (np.array([shot[i] for shot in shots]) for i in range(3))
  embedding = np.array([embed(shot[3]) for shot in shots], np.float32)
  # Squared Euclidean, less the query's own square, which orders nothing.
  distance = np.square(embedding).sum(axis=1) - 2 * embedding @ embedding.T
  precisions = []
  for query in np.flatnonzero(number == 0):
    kept = (number > 0) & ~((person == person[query]) & (camera == camera[query]))
    order = np.argsort(distance[query, kept], kind="stable")
    match = (person[kept] == person[query])[order]
    ranks = np.flatnonzero(match) + 1
    precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
  return 100 * float(np.mean(precisions))


def _color_histogram(pixels: np.ndarray) -> np.ndarray:
  """Square roots of an 8 × 8 × 8 RGB histogram of (N, 3) pixels, whose distance is Hellinger's."""
  bins = pixels.astype(np.int32) // 32 @ np.array((64, 8, 1))
  return np.sqrt(np.bincount(bins, minlength=512) / max(len(pixels), 1))


def _balanced(image: np.ndarray) -> np.ndarray:
  """Takes out light and cast: each channel of each picture to one mean and one spread."""
  centered = image - image.mean((0, 1))
  return np.clip(128 + 50 * centered / image.std((0, 1)), 0, 255)


def test_pixels_and_colours_do_not_solve_it(shots_of_test_people):
  def small(drawn: Pedestrian) -> np.ndarray:
    return np.asarray(Image.fromarray(drawn.image).resize((32, 64))).ravel()

  def colors(drawn: Pedestrian) -> np.ndarray:
    return _color_histogram(drawn.image.reshape(-1, 3))

  def balanced_colors_of_the_body(drawn: Pedestrian) -> np.ndarray:
    return _color_histogram(_balanced(drawn.image)[drawn.part_labels > 0])

  assert _mean_average_precision(shots_of_test_people, small) < 10
  assert _mean_average_precision(shots_of_test_people, colors) < 10
  # Even with the background cut out by the true labels and the cameras' casts taken out.
  assert _mean_average_precision(shots_of_test_people, balanced_colors_of_the_body) < 35


def test_knowing_where_the_colours_are_solves_most_of_it(shots_of_test_people):
  def balanced_colors_by_part(drawn: Pedestrian) -> np.ndarray:
    balanced = _balanced(drawn.image)
    parts = [_color_histogram(balanced[drawn.part_labels == part]) for part in range(1, 8)]
    return np.concatenate(parts)

  assert _mean_average_precision(shots_of_test_people, balanced_colors_by_part) > 60
