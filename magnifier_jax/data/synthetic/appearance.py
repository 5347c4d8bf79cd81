"""Who a synthetic person is: body, clothes, hair and bag, and the fabrics they are made of.

Everybody shares one small palette, so a person is told by where a colour is, by pattern, cut,
shape and bag, and hardly by the colours alone.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Color = tuple[int, int, int]  # RGB, 0…255

CLOTHES: tuple[Color, ...] = (
  (52, 52, 58),
  (206, 204, 200),
  (58, 76, 128),
  (158, 56, 58),
  (92, 110, 66),
  (176, 146, 104),
)
_SKIN: tuple[Color, ...] = ((234, 196, 170), (208, 164, 132), (160, 114, 84), (104, 72, 54))
_HAIR: tuple[Color, ...] = ((30, 26, 26), (84, 58, 40), (168, 132, 82), (140, 138, 136))
_SHOES: tuple[Color, ...] = ((40, 38, 40), (214, 212, 208), (120, 80, 52))
_EYES: Color = (36, 30, 30)


class Layer(NamedTuple):
  """One colour laid over a fabric where its pattern holds."""

  pattern: str  # a key of `PATTERNS`
  color: Color


class Fabric(NamedTuple):
  """A base colour under layers, each of which covers those before it."""

  base: Color
  layers: tuple[Layer, ...] = ()

  def colors(self, angle: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Colours points of a surface.

    Args:
      angle: (N,) float, radians around the body from the front (0) towards the person's side that
        the camera sees on the right when faced.
      height: (N,) float, metres below the top of the body part.

    Returns:
      (N, 3) float32, RGB 0…255.
    """
    colors = np.empty((len(angle), 3), np.float32)
    colors[:] = self.base
    for layer in self.layers:
      colors[PATTERNS[layer.pattern](angle, height)] = layer.color
    return colors


def _turns(angle: np.ndarray, around: int) -> np.ndarray:
  """Whether a point is in an odd one of `2 · around` vertical sectors."""
  return np.floor(angle * around / np.pi).astype(np.int32) % 2 == 1


def _rows(height: np.ndarray, metres: float) -> np.ndarray:
  """Whether a point is in an odd one of the rows of that height."""
  return np.floor(height / metres).astype(np.int32) % 2 == 1


def _backpack_straps(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
  return (np.abs(np.abs(angle) - 0.62) < 0.13) & (height < 0.34)


def _diagonal_strap(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
  """From one shoulder to the other hip, on the front and, mirrored, on the back."""
  return np.abs(np.sin(angle) - (height - 0.25) / 0.25) < 0.14


def _short_hair(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
  return height < np.interp(np.abs(angle), (0.7, 1.3, 1.9), (0.07, 0.12, 0.2))


def _long_hair(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
  return height < np.interp(np.abs(angle), (0.5, 1.0), (0.06, 0.4))


def _eyes(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
  return (np.abs(np.abs(angle) - 0.42) < 0.16) & (np.abs(height - 0.115) < 0.014)


PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  # Upper body.
  "hoops": lambda angle, height: _rows(height, 0.065),
  "wide_hoops": lambda angle, height: _rows(height, 0.13),
  "pinstripes": lambda angle, height: _turns(angle, 7),
  "checks": lambda angle, height: _rows(height, 0.085) ^ _turns(angle, 5),
  "yoke": lambda angle, height: height < 0.2,
  "hem": lambda angle, height: height > 0.33,
  "chest_band": lambda angle, height: np.abs(height - 0.2) < 0.055,
  "open_jacket": lambda angle, height: np.abs(angle) < 0.42,
  "front_print": lambda angle, height: (angle / 0.6) ** 2 + ((height - 0.2) / 0.1) ** 2 < 1,
  "back_print": lambda angle, height: (np.abs(angle) > 2.45) & (np.abs(height - 0.19) < 0.1),
  "half": lambda angle, height: angle > 0,
  "bare_below_sleeve": lambda angle, height: height > 0.2,
  "backpack_straps": _backpack_straps,
  "diagonal_strap": _diagonal_strap,
  # Legs.
  "side_stripe": lambda angle, height: np.abs(np.abs(angle) - np.pi / 2) < 0.45,
  "leg_checks": lambda angle, height: _rows(height, 0.09) ^ _turns(angle, 3),
  # Head.
  "short_hair": _short_hair,
  "long_hair": _long_hair,
  "eyes": _eyes,
}

UPPER_PATTERNS = (
  "plain",
  "hoops",
  "wide_hoops",
  "pinstripes",
  "checks",
  "yoke",
  "hem",
  "chest_band",
  "open_jacket",
  "front_print",
  "back_print",
  "half",
)
SLEEVES = ("none", "short", "long", "contrast")
# A name that stands twice is drawn twice as often.
LOWER_GARMENTS = ("trousers", "trousers", "shorts", "skirt")
LOWER_PATTERNS = ("plain", "plain", "side_stripe", "leg_checks")
HAIR_STYLES = ("short", "short", "long", "bald")
HATS = ("none", "none", "cap", "beanie")
BAGS = ("none", "backpack", "crossbody", "handbag")


@dataclasses.dataclass(frozen=True)
class Person:
  """The lasting looks of one person. Lengths are in metres."""

  height: float
  shoulder_width: float
  hip_width: float
  girth: float  # front to back
  limb_radius: float
  leg_share: float  # hip height over body height
  skin: Color
  hair_style: str
  hair_color: Color
  hat: str
  hat_color: Color
  upper_color: Color
  upper_accent: Color
  upper_pattern: str
  sleeves: str
  coat_length: float  # below the hips
  lower_garment: str
  lower_color: Color
  lower_accent: Color
  lower_pattern: str
  shoe_color: Color
  bag: str
  bag_color: Color

  @property
  def torso_fabric(self) -> Fabric:
    layers = []
    if self.upper_pattern != "plain":
      layers.append(Layer(self.upper_pattern, self.upper_accent))
    if self.bag == "backpack":
      layers.append(Layer("backpack_straps", self.bag_color))
    if self.bag == "crossbody":
      layers.append(Layer("diagonal_strap", self.bag_color))
    return Fabric(self.upper_color, tuple(layers))

  @property
  def upper_arm_fabric(self) -> Fabric:
    if self.sleeves == "none":
      return Fabric(self.skin)
    layers = []
    if self.upper_pattern in ("hoops", "wide_hoops", "checks"):
      layers.append(Layer("hoops", self.upper_accent))
    if self.sleeves == "short":
      layers.append(Layer("bare_below_sleeve", self.skin))
    return Fabric(self._sleeve_color, tuple(layers))

  @property
  def lower_arm_fabric(self) -> Fabric:
    return Fabric(self.skin if self.sleeves in ("none", "short") else self._sleeve_color)

  @property
  def lower_fabric(self) -> Fabric:
    if self.lower_pattern == "plain":
      return Fabric(self.lower_color)
    return Fabric(self.lower_color, (Layer(self.lower_pattern, self.lower_accent),))

  @property
  def shin_fabric(self) -> Fabric:
    return self.lower_fabric if self.lower_garment == "trousers" else Fabric(self.skin)

  @property
  def head_fabric(self) -> Fabric:
    eyes = Layer("eyes", _EYES)
    if self.hair_style == "bald":
      return Fabric(self.skin, (eyes,))
    return Fabric(self.skin, (eyes, Layer(f"{self.hair_style}_hair", self.hair_color)))

  @property
  def _sleeve_color(self) -> Color:
    return self.upper_accent if self.sleeves == "contrast" else self.upper_color


def draw_person(rng: np.random.Generator) -> Person:
  """Draws a person's looks."""
  upper, upper_accent = rng.choice(len(CLOTHES), 2, replace=False)
  lower, lower_accent = rng.choice(len(CLOTHES), 2, replace=False)
  build = rng.uniform(0.85, 1.3)  # slim … stout
  return Person(
    height=rng.uniform(1.55, 1.9),
    shoulder_width=rng.uniform(0.36, 0.43) * build**0.5,
    hip_width=rng.uniform(0.29, 0.36) * build**0.5,
    girth=0.23 * build,
    limb_radius=0.052 * build,
    leg_share=rng.uniform(0.46, 0.53),
    skin=_pick(rng, _SKIN),
    hair_style=_pick(rng, HAIR_STYLES),
    hair_color=_pick(rng, _HAIR),
    hat=_pick(rng, HATS),
    hat_color=_pick(rng, CLOTHES),
    upper_color=CLOTHES[upper],
    upper_accent=CLOTHES[upper_accent],
    upper_pattern=_pick(rng, UPPER_PATTERNS),
    sleeves=_pick(rng, SLEEVES),
    coat_length=rng.choice((0.0, 0.04, 0.22)),
    lower_garment=_pick(rng, LOWER_GARMENTS),
    lower_color=CLOTHES[lower],
    lower_accent=CLOTHES[lower_accent],
    lower_pattern=_pick(rng, LOWER_PATTERNS),
    shoe_color=_pick(rng, _SHOES),
    bag=_pick(rng, BAGS),
    bag_color=_pick(rng, CLOTHES),
  )


def _pick(rng: np.random.Generator, choices: tuple) -> object:
  return choices[rng.integers(len(choices))]
