"""A person who stands upright in the middle of a 100 × 40 image, by hand."""

import numpy as np

from magnifier_jax.part_labelling.body_geometry import Pose

SIZE_HW = (100, 40)

# BlazePose's landmark → (x, y); those of the face lie together.
_POINTS = {
  **dict.fromkeys(range(11), (20, 12)),
  11: (28, 25), 12: (12, 25),  # shoulders
  13: (32, 37), 14: (8, 37),  # elbows
  15: (33, 50), 16: (7, 50),  # wrists
  **dict.fromkeys((17, 19, 21), (33, 54)), **dict.fromkeys((18, 20, 22), (7, 54)),  # hands
  23: (25, 50), 24: (15, 50),  # hips
  25: (25, 70), 26: (15, 70),  # knees
  27: (25, 90), 28: (15, 90),  # ankles
  29: (25, 93), 30: (15, 93), 31: (28, 95), 32: (12, 95),  # heels, toes
}  # fmt: skip

# Pixel (row, column) → part.
EXPECTED = {
  (8, 20): 1, (35, 20): 2, (30, 30): 3, (31, 10): 3, (46, 33): 4, (53, 7): 4,
  (60, 25): 5, (60, 15): 5, (80, 25): 6, (80, 15): 6, (95, 27): 7, (95, 13): 7,
}  # fmt: skip


def pose(visibility: float = 1.0) -> Pose:
  """Returns the landmarks, all equally visible."""
  points = np.array([_POINTS[i] for i in range(33)], np.float32)
  return Pose(points, np.full(33, visibility, np.float32))


def mask() -> np.ndarray:
  """Returns the mask, (100, 40) bool: what is within 5 pixels of a bone, or the torso."""
  points = pose().points_xy
  bones = [(0, 0), (0, 11), (0, 12), (11, 12), (11, 23), (12, 24), (23, 24), (11, 24), (12, 23)]
  bones += [(i, i + 2) for i in (11, 12, 13, 14, 23, 24, 25, 26)] + [(15, 19), (16, 20)]
  bones += [(27, 29), (28, 30), (29, 31), (30, 32)]
  rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
  near = np.zeros(SIZE_HW, bool)
  for start, end in bones:
    for share in np.linspace(0, 1, 40):
      x, y = points[start] + share * (points[end] - points[start])
      near |= np.hypot(columns + 0.5 - x, rows + 0.5 - y) < 5
  return near
