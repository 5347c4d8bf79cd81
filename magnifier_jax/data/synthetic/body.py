"""A walking body as tapered tubes: posed in metres, seen by a camera, painted with part labels.

Axes of the body: x to the side that the camera sees on the right when faced, y up from the ground,
z forward. A tube carries its surface angle, so stripes, prints, straps and hair turn with the body.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from magnifier_jax.body_parts import (
  BACKGROUND,
  FOOT,
  HEAD,
  LOWER_ARM,
  LOWER_LEG,
  TORSO,
  UPPER_ARM,
  UPPER_LEG,
)
from magnifier_jax.data.synthetic.appearance import Fabric, Person

_ROUND = ((0.0, 0.45), (0.12, 0.8), (0.35, 1.0), (0.65, 1.0), (0.88, 0.75), (1.0, 0.4))
# Metres towards the camera, so that parts that touch are painted in this order.
_BEHIND_BIAS, _TUCKED_IN_BIAS, _SKIRT_BIAS, _TORSO_BIAS, _ARM_BIAS = -0.05, 0.10, 0.12, 0.14, 0.15
_NECK_BIAS, _HEAD_BIAS, _HAT_BIAS = 0.16, 0.17, 0.19


class View(NamedTuple):
  """Where the camera stands, and where the body lands in the picture."""

  yaw: float  # radians; 0: the person faces the camera, π: walks away
  pitch: float  # radians by which the camera looks down
  perspective: float  # growth of what is higher up, per metre
  pixels_per_metre: float
  ground_xy: tuple[float, float]  # pixels, below the pelvis


class Pose(NamedTuple):
  """One moment of a walk. Angles in radians."""

  phase: float
  stride: float  # largest swing of a thigh
  elbow_bend: float
  arm_spread: float
  lean: float


class Tube(NamedTuple):
  """A piece of the body in the picture: an axis with a half-width at each point of it."""

  part: int  # label, 0…7
  start: np.ndarray  # (2,) pixels
  end: np.ndarray  # (2,) pixels
  profile: np.ndarray  # (N, 2): share of the way from start to end, half-width in pixels
  length: float  # metres, of the unforeshortened piece
  yaw: float
  depth: float  # metres towards the camera
  fabric: Fabric


def draw_pose(rng: np.random.Generator) -> Pose:
  """Draws a moment of a walk."""
  return Pose(
    phase=rng.uniform(0, 2 * np.pi),
    stride=rng.uniform(0.1, 0.5),
    elbow_bend=rng.uniform(0.05, 0.8),
    arm_spread=rng.uniform(0.06, 0.26),
    lean=rng.normal(0, 0.03),
  )


def posed_tubes(person: Person, pose: Pose, view: View) -> list[Tube]:
  """Poses and projects a person; returns the tubes in the order in which to paint them."""
  body = _Body(person, pose, view)
  _add_legs(body)
  _add_trunk(body)
  _add_arms(body)
  _add_head(body)
  _add_bag(body)
  return sorted(body.tubes, key=lambda tube: tube.depth)


def paint(
  image: np.ndarray, part_labels: np.ndarray, tubes: Sequence[Tube], labelled: bool = True
) -> None:
  """Paints tubes over a picture, in place.

  Args:
    image: (H, W, 3) uint8 RGB.
    part_labels: (H, W) uint8, 0…7.
    tubes: at most 255, the farthest first.
    labelled: False writes label 0 (background) wherever a tube is painted: someone else's body.
  """
  owner = _owners(part_labels.shape, tubes)
  order = np.argsort(owner, axis=None, kind="stable")
  bounds = np.searchsorted(owner.ravel()[order], np.arange(1, len(tubes) + 2))
  pixels, labels = image.reshape(-1, 3), part_labels.reshape(-1)
  for index, tube in enumerate(tubes):
    own = order[bounds[index] : bounds[index + 1]]
    if not own.size:
      continue
    y, x = np.divmod(own, part_labels.shape[1])
    pixels[own] = _tube_colors(tube, x, y)
    labels[own] = tube.part if labelled else BACKGROUND


class _Body:
  """Collects the tubes of one person under one view."""

  def __init__(self, person: Person, pose: Pose, view: View):
    self.person, self.pose, self.view = person, pose, view
    self.tubes: list[Tube] = []
    self.hips_y = person.height * person.leg_share
    self.shoulders_y = person.height * 0.83
    self.wrists: list[np.ndarray] = []

  def project(self, point: Sequence[float]) -> np.ndarray:
    """Returns pixel x, pixel y and depth in metres of a point of the body."""
    x, y, z = point
    cos, sin = np.cos(self.view.yaw), np.sin(self.view.yaw)
    right, depth = x * cos + z * sin, z * cos - x * sin
    up = y * np.cos(self.view.pitch) - depth * np.sin(self.view.pitch)
    scale = self.scale_at(y)
    ground_x, ground_y = self.view.ground_xy
    return np.array([ground_x + right * scale, ground_y - up * scale, depth])

  def scale_at(self, y: float) -> float:
    return self.view.pixels_per_metre * (1 + self.view.perspective * (y - 0.9))

  def add(
    self,
    part: int,
    start: Sequence[float],
    end: Sequence[float],
    profile: Sequence[tuple[float, float]],
    fabric: Fabric,
    bias: float = 0.0,
  ) -> None:
    """Adds a tube; points and half-widths in metres, `bias` moves it towards the camera."""
    first, last = self.project(start), self.project(end)
    scale = self.scale_at((start[1] + end[1]) / 2)
    self.tubes.append(
      Tube(
        part,
        first[:2],
        last[:2],
        np.array(profile) * (1.0, scale),
        float(np.linalg.norm(np.subtract(end, start))),
        self.view.yaw,
        (first[2] + last[2]) / 2 + bias,
        fabric,
      )
    )

  def seen_half_width(self, width: float, depth: float) -> float:
    """Half-width of an elliptic cross-section, turned by the view's yaw."""
    return float(np.hypot(width * np.cos(self.view.yaw), depth * np.sin(self.view.yaw))) / 2


def _limb(top: float, bottom: float) -> tuple[tuple[float, float], ...]:
  """Profile of a limb with rounded ends."""
  return (
    (-0.1, top * 0.55),
    (0.0, top * 0.95),
    (0.25, top),
    (0.95, bottom),
    (1.06, bottom * 0.6),
  )


def _swung(length: float, angle: float, outwards: float = 0.0) -> np.ndarray:
  """Vector of a hanging limb that is swung forward by `angle` and `outwards` to +x."""
  return length * np.array([np.sin(outwards), -np.cos(angle), np.sin(angle)])


def _add_legs(body: _Body) -> None:
  person, pose = body.person, body.pose
  ankle_y = 0.07
  thigh = (body.hips_y - ankle_y) * 0.52
  shin = body.hips_y - ankle_y - thigh
  loose = 1.25 if person.lower_garment == "trousers" else 1.0
  for side, phase in ((-1, pose.phase), (1, pose.phase + np.pi)):
    swing = pose.stride * np.sin(phase)
    bend = pose.stride * 1.2 * max(0.0, np.cos(phase))
    hip = np.array([side * person.hip_width * 0.24, body.hips_y, 0.0])
    knee = hip + _swung(thigh, swing, side * 0.04)
    ankle = knee + _swung(shin, swing - bend)
    toe = ankle + np.array([side * 0.03, -0.05, 0.17])
    radius = person.limb_radius * loose
    body.add(UPPER_LEG, hip, knee, _limb(radius * 1.55, radius * 1.1), person.lower_fabric)
    body.add(LOWER_LEG, knee, ankle, _limb(radius * 1.1, radius * 0.8), person.shin_fabric)
    heel = ankle - np.array([0.0, 0.03, 0.05])
    body.add(FOOT, heel, toe, [(x, 0.058 * w) for x, w in _ROUND], Fabric(person.shoe_color), 0.01)
  if person.lower_garment == "skirt":
    _add_skirt(body, thigh)


def _add_skirt(body: _Body, thigh: float) -> None:
  top = body.seen_half_width(body.person.hip_width, body.person.girth)
  waist, hem = (0.0, body.hips_y + 0.05, 0.0), (0.0, body.hips_y - thigh * 0.85, 0.0)
  profile = [(0.0, top * 0.85), (0.35, top * 1.1), (1.0, top * 1.4 + 0.03)]
  body.add(UPPER_LEG, waist, hem, profile, body.person.lower_fabric, _SKIRT_BIAS)


def _add_trunk(body: _Body) -> None:
  person = body.person
  shoulders = body.seen_half_width(person.shoulder_width, person.girth * 0.8)
  chest = body.seen_half_width(person.shoulder_width * 0.93, person.girth)
  hips = body.seen_half_width(person.hip_width, person.girth)
  waist = 0.45 * chest + 0.45 * hips
  length = body.shoulders_y - body.hips_y + person.coat_length
  hem = (0.0, body.hips_y - person.coat_length, 0.0)
  top = (0.0, body.shoulders_y, np.sin(body.pose.lean) * length)
  profile = [
    (-0.06, shoulders * 0.4),
    (0.0, shoulders * 0.85),
    (0.08, shoulders),
    (0.3, chest),
    (0.6, waist),
    (0.85, hips),
    (1.0, hips * (1.02 + person.coat_length * 0.6)),
  ]
  tucked_in = person.lower_garment == "skirt" and person.coat_length <= 0.1
  bias = _TUCKED_IN_BIAS if tucked_in else _TORSO_BIAS
  body.add(TORSO, top, hem, profile, person.torso_fabric, bias)


def _add_arms(body: _Body) -> None:
  person, pose = body.person, body.pose
  upper, lower = person.height * 0.165, person.height * 0.15
  half = person.shoulder_width / 2 - person.limb_radius * 0.4
  for side, phase in ((-1, pose.phase + np.pi), (1, pose.phase)):
    carries = person.bag == "handbag" and side == 1
    swing = pose.stride * 0.9 * np.sin(phase) * (0.3 if carries else 1.0)
    bend = 0.05 if carries else pose.elbow_bend
    shoulder = np.array([side * half, body.shoulders_y - 0.03, np.sin(pose.lean) * 0.5])
    elbow = shoulder + _swung(upper, swing, side * pose.arm_spread)
    wrist = elbow + _swung(lower, swing + bend, side * pose.arm_spread * 0.3)
    hand = wrist + (wrist - elbow) * 0.32
    radius = person.limb_radius * (1.1 if person.sleeves in ("long", "contrast") else 0.95)
    body.add(
      UPPER_ARM, shoulder, elbow, _limb(radius, radius * 0.9), person.upper_arm_fabric, _ARM_BIAS
    )
    body.add(
      LOWER_ARM, elbow, wrist, _limb(radius * 0.9, radius * 0.7), person.lower_arm_fabric, _ARM_BIAS
    )
    fist = [(x, 0.042 * w) for x, w in _ROUND]
    body.add(LOWER_ARM, wrist, hand, fist, Fabric(person.skin), _ARM_BIAS + 0.001)
    body.wrists.append(hand)


def _add_head(body: _Body) -> None:
  person, lean = body.person, np.sin(body.pose.lean)
  top, chin = person.height, person.height - 0.245
  half = 0.095
  z = lean * 0.6 + 0.02
  neck = (0.0, chin + 0.05, z - 0.01), (0.0, body.shoulders_y - 0.02, lean * 0.5)
  body.add(HEAD, *neck, [(0.0, 0.055), (1.0, 0.065)], Fabric(person.skin), _NECK_BIAS)
  skull = [(share, half * width) for share, width in _ROUND]
  body.add(HEAD, (0.0, top, z), (0.0, chin, z), skull, person.head_fabric, _HEAD_BIAS)
  if person.hair_style == "long":
    mane = [(0.0, 0.07), (0.3, 0.11), (0.85, 0.115), (1.0, 0.08)]
    ends = (0.0, top - 0.06, z - 0.1), (0.0, top - 0.43, z - 0.12)
    body.add(HEAD, *ends, mane, Fabric(person.hair_color), _TORSO_BIAS)
  _add_hat(body, z)


def _add_hat(body: _Body, z: float) -> None:
  person, top = body.person, body.person.height
  fabric = Fabric(person.hat_color)
  if person.hat == "beanie":
    crown = [(0.0, 0.03), (0.15, 0.075), (0.5, 0.104), (1.0, 0.108)]
    body.add(HEAD, (0.0, top + 0.05, z), (0.0, top - 0.1, z), crown, fabric, _HAT_BIAS)
  if person.hat == "cap":
    crown = [(0.0, 0.05), (0.25, 0.088), (1.0, 0.102)]
    body.add(HEAD, (0.0, top + 0.02, z), (0.0, top - 0.075, z), crown, fabric, _HAT_BIAS)
    brim = [(0.0, 0.09), (1.0, 0.07)]
    body.add(
      HEAD, (0.0, top - 0.06, z + 0.06), (0.0, top - 0.085, z + 0.17), brim, fabric, _HEAD_BIAS
    )


def _add_bag(body: _Body) -> None:
  """Bags are labelled as background, as parsers of human parts do."""
  person = body.person
  fabric = Fabric(person.bag_color)
  if person.bag == "backpack":
    z = -person.girth / 2 - 0.07
    width = body.seen_half_width(person.shoulder_width * 0.8, 0.2)
    sack = [(0.0, width * 0.6), (0.12, width * 0.95), (0.85, width), (1.0, width * 0.8)]
    top, bottom = body.shoulders_y - 0.02, body.hips_y + 0.12
    # From behind the sack hides the torso, which has a bias of its own.
    bias = _TORSO_BIAS if np.cos(body.view.yaw) < 0.3 else _BEHIND_BIAS
    body.add(BACKGROUND, (0.0, top, z), (0.0, bottom, z), sack, fabric, bias)
  if person.bag == "crossbody":
    x = -person.hip_width / 2 - 0.04
    width = body.seen_half_width(0.12, 0.3)
    pouch = [(0.0, width * 0.9), (0.1, width), (1.0, width)]
    top = body.hips_y + 0.1
    body.add(BACKGROUND, (x, top, 0.0), (x, top - 0.22, 0.0), pouch, fabric, _HAT_BIAS)
  if person.bag == "handbag":
    x, y, z = body.wrists[1]
    width = body.seen_half_width(0.1, 0.34)
    purse = [(0.0, 0.02), (0.3, 0.02), (0.31, width * 0.8), (1.0, width)]
    body.add(BACKGROUND, (x, y + 0.06, z), (x, y - 0.3, z), purse, fabric, _SKIRT_BIAS)


def _owners(shape: tuple[int, int], tubes: Sequence[Tube]) -> np.ndarray:
  """Returns (H, W) uint8: 1 + the index of the tube that shows at each pixel, or 0."""
  canvas = Image.new("L", (shape[1], shape[0]))
  pen = ImageDraw.Draw(canvas)
  for index, tube in enumerate(tubes):
    axis, across, _ = _frame(tube)
    share, half = tube.profile[:, :1], tube.profile[:, 1:]
    spine = tube.start + share * axis
    outline = np.concatenate([spine + half * across, (spine - half * across)[::-1]])
    pen.polygon(outline.ravel().tolist(), fill=index + 1)
  return np.asarray(canvas)


def _frame(tube: Tube) -> tuple[np.ndarray, np.ndarray, float]:
  """Returns the axis in pixels, the unit vector across it and the axis' length.

  A piece that points at the camera is drawn as long as it is wide, straight down.
  """
  axis = tube.end - tube.start
  length = float(np.hypot(*axis))
  shortest = float(tube.profile[:, 1].max())
  if length < shortest:
    axis = np.array([0.0, shortest]) if length < 1e-6 else axis * (shortest / length)
    length = shortest
  return axis, np.array([axis[1], -axis[0]]) / length, length


def _tube_colors(tube: Tube, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns (N, 3) uint8 colours of pixels on a tube: its fabric, shaded as a cylinder."""
  axis, across, length = _frame(tube)
  offset = np.stack([x, y], -1) - tube.start
  along = offset @ axis / length**2
  half = np.interp(along, tube.profile[:, 0], tube.profile[:, 1])
  side = np.clip(offset @ across / half, -0.98, 0.98)
  angle = np.arcsin(side) - tube.yaw
  angle = (angle + np.pi) % (2 * np.pi) - np.pi
  shade = 0.62 + 0.38 * np.sqrt(1 - side**2) - 0.08 * side
  return np.clip(tube.fabric.colors(angle, along * tube.length) * shade[:, None], 0, 255)
