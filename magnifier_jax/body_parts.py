"""The eight semantic parts of a picture: number, name, group, and the colour that stands for each.

They are those of EANet (Huang et al., "EANet: Enhancing Alignment for Cross-Domain Person
Re-identification"), whose files of part labels have these numbers as the values of pixels.
"""

from typing import NamedTuple

BACKGROUND, HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG, FOOT = range(8)

# Semantic occlusion draws from each group by itself.
UPPER_PARTS = (HEAD, TORSO, UPPER_ARM, LOWER_ARM)
LOWER_PARTS = (UPPER_LEG, LOWER_LEG, FOOT)


class Part(NamedTuple):
  """A part's name, and the colour that it is painted with, '#rrggbb'."""

  name: str
  colour: str


# By number. Okabe and Ito's palette, told apart with any colour vision. Neighbours on the body
# (head and torso, upper and lower arm or leg) differ in lightness too.
PARTS = (
  Part("background", "#000000"),
  Part("head", "#f0e442"),
  Part("torso", "#0072b2"),
  Part("upper arm", "#e69f00"),
  Part("lower arm", "#cc79a7"),
  Part("upper leg", "#009e73"),
  Part("lower leg", "#56b4e9"),
  Part("foot", "#d55e00"),
)
NUM_PARTS = len(PARTS)
PART_NAMES = tuple(part.name for part in PARTS)
