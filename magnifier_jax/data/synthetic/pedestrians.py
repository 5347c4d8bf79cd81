"""Draws the pictures of the synthetic data set: pedestrians with exact part labels.

A person is a function of (seed, person id), a picture of (seed, person id, camera, picture number),
so any picture can be drawn alone and the data set needs no files. Nobody in it is real.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from magnifier_jax.data.synthetic.appearance import Person, draw_person
from magnifier_jax.data.synthetic.body import View, draw_pose, paint, posed_tubes
from magnifier_jax.data.synthetic.cameras import CAMERAS, Camera, backdrop, develop, occlude

# Painted at this many times the picture's size, then averaged: smooth edges without a renderer.
_SUPERSAMPLING = 2
_OCCLUDER_PROBABILITY = 0.2
_PASSER_BY_PROBABILITY = 0.2
_IN_FRONT_PROBABILITY = 0.3  # of a passer-by


class Pedestrian(NamedTuple):
  """A picture of one person."""

  image: np.ndarray  # (H, W, 3) uint8 RGB
  part_labels: np.ndarray  # (H, W) uint8, 0…7 of `body_parts.PARTS`


def person_of(seed: int, person_id: int) -> Person:
  """Returns the looks of a person."""
  return draw_person(np.random.default_rng((seed, 0, person_id)))


def draw_pedestrian(seed: int, person_id: int, camera: int, number: int) -> Pedestrian:
  """Draws one picture.

  Args:
    seed: of the data set, at least 0.
    person_id: at least 0.
    camera: index into `synthetic_cameras.CAMERAS`.
    number: which picture of this person by this camera, at least 0.

  Returns:
    A picture of 95 to 184 rows and about half as many columns, and its labels: those of this
    person only; bags, passers-by and everything else are background.
  """
  rng = np.random.default_rng((seed, 2, person_id, camera, number))
  place = CAMERAS[camera]
  size_hw = _crop_size(place, rng)
  canvas_hw = size_hw[0] * _SUPERSAMPLING, size_hw[1] * _SUPERSAMPLING
  image = backdrop(seed, camera, canvas_hw, rng)
  labels = np.zeros(canvas_hw, np.uint8)
  person = person_of(seed, person_id)
  view = _crop_view(person, place, canvas_hw, rng)
  passes, in_front = rng.random() < _PASSER_BY_PROBABILITY, rng.random() < _IN_FRONT_PROBABILITY
  if passes and not in_front:
    _paint_passer_by(image, labels, view, rng, size=rng.uniform(0.6, 0.85))
  _paint_shadow(image, view)
  paint(image, labels, posed_tubes(person, draw_pose(rng), view))
  if passes and in_front:
    _paint_passer_by(image, labels, view, rng, size=rng.uniform(1.1, 1.3))
  if rng.random() < _OCCLUDER_PROBABILITY:
    occlude(image, labels, rng)
  small = Image.fromarray(image).reduce(_SUPERSAMPLING)
  # One sample a pixel: an average of labels would invent parts.
  sampled = labels[_SUPERSAMPLING // 2 :: _SUPERSAMPLING, _SUPERSAMPLING // 2 :: _SUPERSAMPLING]
  return Pedestrian(develop(np.asarray(small), place, rng), np.ascontiguousarray(sampled))


def _crop_size(camera: Camera, rng: np.random.Generator) -> tuple[int, int]:
  height = round(camera.height_px * rng.uniform(0.85, 1.15))
  return height, round(height * rng.uniform(0.42, 0.54))


def _crop_view(
  person: Person, camera: Camera, canvas_hw: tuple[int, int], rng: np.random.Generator
) -> View:
  """A detector's box: the person fills it loosely, is off its middle, may lose head or feet."""
  height, width = canvas_hw
  return View(
    yaw=rng.normal(camera.yaw, camera.yaw_spread),
    pitch=camera.pitch + rng.normal(0, 0.03),
    perspective=camera.perspective,
    # A detector scales everybody to the box, so only some of the body height is left to see.
    pixels_per_metre=height * rng.uniform(0.78, 0.95) / (0.6 * person.height + 0.4 * 1.72),
    ground_xy=(width * rng.normal(0.5, 0.05), height * rng.uniform(0.91, 0.99)),
  )


def _paint_passer_by(
  image: np.ndarray, labels: np.ndarray, view: View, rng: np.random.Generator, size: float
) -> None:
  """Paints somebody else, partly in the picture, as background."""
  side = rng.choice((-1.0, 1.0)) * rng.uniform(0.33, 0.5) * image.shape[1]
  other = view._replace(
    yaw=rng.uniform(0, 2 * np.pi),
    pixels_per_metre=view.pixels_per_metre * size,
    ground_xy=(view.ground_xy[0] + side, view.ground_xy[1] * (0.5 + 0.5 * size)),
  )
  paint(image, labels, posed_tubes(draw_person(rng), draw_pose(rng), other), labelled=False)


def _paint_shadow(image: np.ndarray, view: View) -> None:
  x, y = view.ground_xy
  reach = 0.33 * view.pixels_per_metre
  mask = Image.new("L", image.shape[1::-1])
  ImageDraw.Draw(mask).ellipse((x - reach, y - reach * 0.25, x + reach, y + reach * 0.25), fill=1)
  shaded = np.asarray(mask, bool)
  image[shaded] = image[shaded] * 0.6
