"""File names that tell who is on an image, as Market-1501 began it."""

import re
from typing import NamedTuple

_NAME = re.compile(r"(?P<person_id>-?\d+)_c(?P<camera_id>\d+)(?!\d)")


class NamedBy(NamedTuple):
  """What a file name tells; None for both where it tells nothing."""

  person_id: int | None
  camera_id: int | None


def told_by_name(path: str) -> NamedBy:
  """Returns the person and camera that an image's name begins with, as in 0002_c1s1_7.jpg."""
  name = _NAME.match(path, path.rfind("/") + 1)
  if name is None:
    return NamedBy(None, None)
  return NamedBy(int(name["person_id"]), int(name["camera_id"]))
