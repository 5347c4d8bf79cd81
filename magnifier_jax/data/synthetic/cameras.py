"""The cameras of the synthetic data set: viewpoint, backdrop, obstacles and colours.

No two cameras agree on light, white balance, gamma, contrast, sharpness or viewpoint, so a colour
seen by one means little to another.
"""

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from magnifier_jax.body_parts import BACKGROUND

_PANORAMA_SIZE = (960, 320)  # pixels, width × height
_HORIZON = 0.45  # share of the panorama's height that is wall


class Camera(NamedTuple):
  """A camera's place and response."""

  yaw: float  # radians: how people usually walk past; 0 towards the camera, π away from it
  yaw_spread: float  # radians, standard deviation
  pitch: float  # radians by which it looks down
  perspective: float  # growth of what is higher up, per metre
  height_px: int  # usual height of a crop
  white_balance: tuple[float, float, float]  # factors on RGB
  gamma: float
  contrast: float
  saturation: float
  blur_px: float
  noise: float  # standard deviation, of 255


CAMERAS: tuple[Camera, ...] = (
  Camera(0.0, 0.45, 0.10, 0.03, 144, (1.10, 1.00, 0.82), 0.92, 1.05, 1.00, 0.3, 3.0),
  Camera(np.pi, 0.45, 0.32, 0.10, 128, (0.84, 0.96, 1.12), 1.12, 0.92, 0.90, 0.6, 4.0),
  Camera(np.pi / 2, 0.60, 0.20, 0.06, 120, (0.94, 1.06, 0.88), 1.00, 0.82, 0.85, 0.7, 5.0),
  Camera(-np.pi / 2, 0.60, 0.05, 0.00, 152, (1.12, 0.88, 1.00), 0.95, 1.10, 1.10, 0.4, 4.0),
  Camera(0.8, 0.50, 0.40, 0.14, 112, (1.00, 1.00, 1.00), 1.35, 0.90, 0.60, 0.8, 7.0),
  Camera(-2.4, 0.50, 0.15, 0.05, 160, (1.14, 1.04, 0.74), 0.82, 0.85, 0.90, 0.5, 3.0),
)


def backdrop(
  seed: int, camera: int, size_hw: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
  """Cuts what is behind a person out of the camera's panorama.

  Args:
    seed: of the data set, chooses the scene.
    camera: index into `CAMERAS`.
    size_hw: pixels of the cut-out.
    rng: chooses the place.

  Returns:
    (H, W, 3) uint8.
  """
  width, height = _PANORAMA_SIZE
  cut_height = height * rng.uniform(0.6, 1.0)
  cut_width = cut_height * size_hw[1] / size_hw[0]
  left, top = rng.uniform(0, width - cut_width), rng.uniform(0, height - cut_height)
  box = (left, top, left + cut_width, top + cut_height)
  panorama = _panorama(seed, camera)
  return np.array(panorama.resize(size_hw[::-1], Image.Resampling.BILINEAR, box))


def occlude(image: np.ndarray, part_labels: np.ndarray, rng: np.random.Generator) -> None:
  """Draws one thing that stands between camera and person, in place; its label is background.

  Args:
    image: (H, W, 3) uint8.
    part_labels: (H, W) uint8.
    rng: chooses the thing and its place.
  """
  height, width = part_labels.shape
  canvas, mask = Image.fromarray(image), Image.new("1", (width, height))
  color = _gray_tone(rng, 50, 190)
  dark = tuple(c // 2 for c in color)
  kind = rng.choice(("pole", "car", "box", "bush"))
  shapes = _OCCLUDERS[kind](rng, width, height)
  pens = ImageDraw.Draw(canvas), ImageDraw.Draw(mask)
  for shape, points, is_dark in shapes:
    getattr(pens[0], shape)(points, fill=dark if is_dark else color)
    getattr(pens[1], shape)(points, fill=1)
  image[:] = np.asarray(canvas)
  part_labels[np.asarray(mask)] = BACKGROUND


def develop(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
  """Passes a picture through a camera: light, white balance, contrast, gamma, blur, noise.

  Args:
    image: (H, W, 3) uint8.
    camera: its response.
    rng: changes of light between moments, and the noise.

  Returns:
    (H, W, 3) uint8.
  """
  soft = Image.fromarray(image).filter(
    ImageFilter.GaussianBlur(camera.blur_px * rng.uniform(0.6, 1.4))
  )
  light = np.asarray(soft, np.float32) / 255
  light *= _daylight(image.shape[:2], rng)[..., None]
  light *= np.float32(camera.white_balance) * rng.uniform(0.93, 1.07, 3).astype(np.float32)
  gray = light.mean(-1, keepdims=True)
  light = gray + (light - gray) * np.float32(camera.saturation)
  light = 0.45 + (light - 0.45) * np.float32(camera.contrast * rng.uniform(0.9, 1.1))
  light = np.clip(light, 0, 1) ** np.float32(camera.gamma)
  noise = rng.standard_normal(light.shape, np.float32) * np.float32(camera.noise)
  return np.clip(light * 255 + noise, 0, 255).astype(np.uint8)


def _daylight(size_hw: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
  """Brightness over the picture, (H, W) float32: a level and a slope across."""
  slope = np.linspace(-1, 1, size_hw[1], dtype=np.float32) * np.float32(rng.uniform(-0.15, 0.15))
  level = np.float32(rng.uniform(0.78, 1.22))
  return np.broadcast_to(level * (1 + slope)[None], size_hw)


@functools.lru_cache(maxsize=len(CAMERAS))
def _panorama(seed: int, camera: int) -> Image.Image:
  """Paints a street along a wall: stones, windows, posters, posts, hedges, kerb and slabs."""
  rng = np.random.default_rng((seed, 1, camera))
  width, height = _PANORAMA_SIZE
  horizon = int(height * _HORIZON)
  canvas = Image.new("RGB", _PANORAMA_SIZE, _gray_tone(rng, 110, 200))
  pen = ImageDraw.Draw(canvas)
  _paint_wall(pen, rng, width, horizon)
  pen.rectangle((0, horizon, width, height), fill=_gray_tone(rng, 90, 170))
  _paint_slabs(pen, rng, width, horizon, height)
  for _ in range(14):
    _paint_clutter(pen, rng, width, horizon)
  grain = rng.normal(0, 5, (height, width, 1))
  return Image.fromarray(np.clip(np.asarray(canvas) + grain, 0, 255).astype(np.uint8))


def _paint_wall(pen: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, foot: int) -> None:
  mortar = _gray_tone(rng, 90, 180)
  course = int(rng.integers(9, 22))
  for row, y in enumerate(range(0, foot, course)):
    pen.line((0, y, width, y), fill=mortar)
    for x in range((row % 2) * course, width, course * 2):
      pen.line((x, y, x, y + course), fill=mortar)
  for x in range(int(rng.integers(40)), width, int(rng.integers(90, 170))):
    frame, glass = _gray_tone(rng, 40, 230), _gray_tone(rng, 30, 110)
    top, tall, wide = rng.integers(8, 40), rng.integers(45, 100), rng.integers(35, 70)
    pen.rectangle((x, top, x + wide, top + tall), fill=frame)
    pen.rectangle((x + 4, top + 4, x + wide - 4, top + tall - 4), fill=glass)


def _paint_slabs(
  pen: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, horizon: int, height: int
) -> None:
  seam = _gray_tone(rng, 60, 150)
  for row in range(8):
    y = horizon + (height - horizon) * (row / 8) ** 1.6
    pen.line((0, y, width, y), fill=seam, width=2)
  slant = rng.uniform(-0.4, 0.4) * (height - horizon)
  for x in range(-200, width + 200, int(rng.integers(45, 90))):
    pen.line((x, horizon, x + slant, height), fill=seam, width=2)


def _paint_clutter(
  pen: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, horizon: int
) -> None:
  x, color = int(rng.integers(width)), tuple(int(c) for c in rng.integers(40, 220, 3))
  foot = horizon + int(rng.integers(4, 40))
  kind = rng.integers(4)
  if kind == 0:
    pen.rectangle((x, foot - rng.integers(120, 220), x + rng.integers(4, 11), foot), fill=color)
  elif kind == 1:
    for _ in range(9):
      dx, dy, r = rng.integers(-28, 28), rng.integers(0, 40), rng.integers(8, 18)
      green = (int(rng.integers(40, 90)), int(rng.integers(80, 140)), 50)
      pen.ellipse((x + dx - r, foot - dy - r, x + dx + r, foot - dy + r), fill=green)
  elif kind == 2:
    pen.rectangle((x, foot - 60, x + rng.integers(24, 50), foot), fill=color)
  else:
    top = int(rng.integers(20, 70))
    pen.rectangle((x, top, x + 34, top + 44), fill=color)
    pen.rectangle((x + 6, top + 8, x + 28, top + 22), fill=tuple(255 - c for c in color))


def _gray_tone(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
  """A muted colour: a gray with a little hue."""
  return tuple(int(c) for c in rng.integers(low, high) + rng.integers(-24, 25, 3))


# What may stand in front: (ImageDraw method, points, darker) each, on a picture of width × height.
_Shape = tuple[str, list[float], bool]


def _pole(rng: np.random.Generator, width: int, height: int) -> list[_Shape]:
  x, thick = rng.uniform(0.15, 0.85) * width, rng.uniform(0.05, 0.13) * width
  bars = [("rectangle", [x, 0, x + thick, height], False)]
  return [*bars, ("rectangle", [x, 0, x + thick * 0.3, height], True)]


def _car(rng: np.random.Generator, width: int, height: int) -> list[_Shape]:
  top, nose = rng.uniform(0.68, 0.85) * height, rng.uniform(-0.2, 0.35) * width
  radius = height * 0.06
  body = ("rounded_rectangle", [nose, top, nose + 2 * width, height * 1.2], False)
  wheel = [nose + radius, height - 2 * radius, nose + 3 * radius, height]
  return [body, ("ellipse", wheel, True)]


def _box(rng: np.random.Generator, width: int, height: int) -> list[_Shape]:
  left, top = rng.uniform(-0.2, 0.7) * width, rng.uniform(0.6, 0.8) * height
  right, bottom = left + rng.uniform(0.3, 0.55) * width, top + rng.uniform(0.16, 0.3) * height
  handle = [left + 4, top - 0.12 * height, left + 9, top]
  return [
    ("rectangle", handle, True),
    ("rectangle", [left, top, right, bottom], False),
    ("rectangle", [left, top, right, top + 0.03 * height], True),
  ]


def _bush(rng: np.random.Generator, width: int, height: int) -> list[_Shape]:
  middle = rng.choice((rng.uniform(-0.05, 0.25), rng.uniform(0.75, 1.05))) * width
  leaves = []
  for _ in range(12):
    x, y = middle + rng.normal(0, 0.14) * width, height * rng.uniform(0.62, 1.0)
    r = rng.uniform(0.06, 0.13) * width
    leaves.append(("ellipse", [x - r, y - r, x + r, y + r], bool(rng.integers(2))))
  return leaves


_OCCLUDERS = {"pole": _pole, "car": _car, "box": _box, "bush": _bush}
