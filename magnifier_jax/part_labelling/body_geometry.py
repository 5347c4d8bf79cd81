"""Draws the eight parts of a body from pose landmarks and a person mask.

A limb is a capsule: all that is within some radius of the line between two joints. A pixel of the
mask belongs to the capsule that it is deepest in, or nearest to where it is in none. Pixels outside
the mask are background.
"""

from typing import NamedTuple

import numpy as np

from magnifier_jax.body_parts import (
  FOOT,
  HEAD,
  LOWER_ARM,
  LOWER_LEG,
  TORSO,
  UPPER_ARM,
  UPPER_LEG,
)

NUM_LANDMARKS = 33

_FACE = slice(0, 11)  # nose, eyes, ears, mouth
_SHOULDERS, _HIPS = (11, 12), (23, 24)
_MIN_UNIT = 4.0  # pixels; a torso seen from above or below has almost no length


class Pose(NamedTuple):
  """The landmarks of one person, in the order of BlazePose."""

  points_xy: np.ndarray  # (33, 2) float32, pixels of the image; may lie outside of it
  visibility: np.ndarray  # (33,) float32, 0…1


class _Limb(NamedTuple):
  """A capsule between two landmarks of one side of the body; the other side's are one further."""

  part: int
  start: int
  end: int
  radius: float  # torso lengths
  in_front: bool = False  # True: hides the torso where its joints are visible


_LIMBS = (
  _Limb(UPPER_ARM, 11, 13, 0.12, in_front=True),
  _Limb(LOWER_ARM, 13, 15, 0.10, in_front=True),
  _Limb(LOWER_ARM, 15, 19, 0.10, in_front=True),  # the hand, up to the index finger
  _Limb(UPPER_LEG, 23, 25, 0.20),
  _Limb(LOWER_LEG, 25, 27, 0.16),
  _Limb(FOOT, 29, 31, 0.12),
)
_HEAD_RADIUS = 0.27  # torso lengths
_TORSO_RADIUS = 0.22  # around the shoulders and hips; seen from the side they are one line
_VISIBLE = 0.5


def draw_parts(pose: Pose, mask: np.ndarray) -> np.ndarray:
  """Returns the parts of a person.

  Args:
    pose: of the person.
    mask: (H, W) bool, where the person is.

  Returns:
    (H, W) uint8, values 0…7.
  """
  rows, columns = np.nonzero(mask)
  pixels = np.stack([columns, rows], axis=1) + np.float32(0.5)
  shoulders, hips = (pose.points_xy[list(pair)].mean(axis=0) for pair in (_SHOULDERS, _HIPS))
  unit = max(float(np.linalg.norm(shoulders - hips)), _MIN_UNIT)
  parts, depths = zip(*_capsules(pose, pixels, unit), strict=True)
  labels = np.zeros(mask.shape, np.uint8)
  labels[rows, columns] = np.array(parts, np.uint8)[np.argmax(depths, axis=0)]
  return labels


def _capsules(pose: Pose, pixels: np.ndarray, unit: float):
  """Yields the part of each capsule and how deep each pixel is in it, (N,), torso lengths."""
  points = pose.points_xy
  head = points[_FACE].mean(axis=0)
  neck = points[list(_SHOULDERS)].mean(axis=0)
  yield HEAD, _HEAD_RADIUS - _to_line(pixels, head, head + 0.3 * (neck - head)) / unit
  yield TORSO, _TORSO_RADIUS - _to_torso(pixels, points) / unit
  for limb in _LIMBS:
    for side in (0, 1):
      start, end = limb.start + side, limb.end + side
      depth = limb.radius - _to_line(pixels, points[start], points[end]) / unit
      if limb.in_front and pose.visibility[[start, end]].min() >= _VISIBLE:
        depth = np.where(depth > 0, depth + 1, depth)
      yield limb.part, depth


def _to_line(pixels: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
  """Returns each pixel's distance to the line between two points, (N,) pixels."""
  along = end - start
  position = (pixels - start) @ along / max(float(along @ along), 1e-6)
  return np.linalg.norm(pixels - start - np.clip(position, 0, 1)[:, None] * along, axis=1)


def _to_torso(pixels: np.ndarray, points: np.ndarray) -> np.ndarray:
  """Returns each pixel's distance to the quadrilateral of shoulders and hips; 0 inside."""
  corners = points[[_SHOULDERS[0], _SHOULDERS[1], _HIPS[1], _HIPS[0]]]
  following = np.roll(corners, -1, axis=0)
  edges = np.min([_to_line(pixels, *ends) for ends in zip(corners, following)], axis=0)
  sides = np.stack([_cross(end - start, pixels - start) for start, end in zip(corners, following)])
  inside = (sides >= 0).all(axis=0) | (sides <= 0).all(axis=0)
  return np.where(inside, 0, edges)


def _cross(along: np.ndarray, vectors: np.ndarray) -> np.ndarray:
  return along[0] * vectors[:, 1] - along[1] * vectors[:, 0]
