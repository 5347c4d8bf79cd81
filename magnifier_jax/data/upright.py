"""How a photograph must be turned to stand upright, by its EXIF orientation."""

from collections.abc import Callable

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112  # the EXIF tag
# One of these stands in every file that says how it is turned.
_SIGNS_OF_A_TURN = (b"Exif", b"eXIf", b"exif", b"xmp")
# Likewise, in what Pillow has read of a file; Image.getexif looks at these.
_KEYS_OF_A_TURN = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
# What makes an image upright, by its orientation; rows are the first axis.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
  2: lambda pixels: pixels[:, ::-1],
  3: lambda pixels: pixels[::-1, ::-1],
  4: lambda pixels: pixels[::-1],
  5: lambda pixels: pixels.swapaxes(0, 1),
  6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
  7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
  8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}


def turn_of(
  image: Image.Image, encoded: bytes | None = None
) -> Callable[[np.ndarray], np.ndarray] | None:
  """Returns what makes an image upright; None where nothing is to be done.

  Args:
    image: as it was opened.
    encoded: its file, which tells quickly that nothing is to be done; None where there is none.

  Returns:
    A function from pixels (H, W, …) to a view of them.
  """
  # Asking Pillow costs more than decoding a small image, and most files say nothing.
  if encoded is not None and not any(sign in encoded for sign in _SIGNS_OF_A_TURN):
    return None
  try:
    image.load()  # in a PNG it may stand behind the pixels
    if not any(key in image.info for key in _KEYS_OF_A_TURN):
      return None
    return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
  except Exception:  # as many kinds; viewers show an image with damaged EXIF data as it is stored
    return None
