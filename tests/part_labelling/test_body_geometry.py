"""Parts from landmarks that were placed by hand."""

import numpy as np
import pytest

from magnifier_jax.part_labelling.body_geometry import Pose, draw_parts

from . import standing_person


def test_every_part_lies_where_its_joints_are():
  parts = draw_parts(standing_person.pose(), standing_person.mask())
  found = {place: int(parts[place]) for place in standing_person.EXPECTED}
  assert found == standing_person.EXPECTED
  assert parts.dtype == np.uint8


def test_the_mask_alone_says_what_is_background():
  mask = np.random.default_rng(0).random(standing_person.SIZE_HW) < 0.5
  parts = draw_parts(standing_person.pose(), mask)
  np.testing.assert_array_equal(parts > 0, mask)


@pytest.mark.parametrize(("visibility", "part"), [(0.9, 4), (0.1, 2)])
def test_an_arm_hides_the_torso_only_where_it_is_visible(visibility: float, part: int):
  pose = standing_person.pose()
  # The left forearm lies across the belly.
  pose.points_xy[[13, 15, 17, 19, 21]] = [(30, 38), (16, 38), (14, 38), (14, 38), (14, 38)]
  pose.visibility[[13, 15, 19]] = visibility
  assert draw_parts(pose, standing_person.mask())[38, 20] == part


def test_twice_the_size_gives_the_same_parts_twice_the_size():
  pose, mask = standing_person.pose(), standing_person.mask()
  large = draw_parts(Pose(2 * pose.points_xy, pose.visibility), mask.repeat(2, 0).repeat(2, 1))
  agree = large[::2, ::2] == draw_parts(pose, mask)
  assert agree.mean() > 0.97  # all but pixels on a border


def test_landmarks_in_one_point_and_an_empty_mask_are_no_trouble():
  pose = Pose(np.full((33, 2), 5, np.float32), np.ones(33, np.float32))
  with np.errstate(all="raise"):
    assert draw_parts(pose, np.ones((10, 10), bool)).all()
    assert not draw_parts(pose, np.zeros((10, 10), bool)).any()
