"""A search as a page: each query beside the nearest images, in the style of a run's report.

The page holds its pictures and asks for nothing outside itself. It shows photographs of people, so
it is as private as they are.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from magnifier_jax.report.html_templates import template_environment
from magnifier_jax.report.pictures import photograph_uri
from magnifier_jax.retrieval.images import decode
from magnifier_jax.retrieval.search_results import SearchResult

TITLE = "<title>Search in "
_SHOWN_QUERIES = 100  # a page of 100 with 10 matches each has some 10 MB
_HEIGHT = 192  # pixels


def render_page(result: SearchResult) -> str:
  """Returns the result as one HTML page."""
  environment = template_environment("magnifier_jax.retrieval", "magnifier_jax.report")
  environment.filters |= {"picture": _picture, "file_name": os.path.basename}
  return environment.get_template("search.html").render(
    result=result, shown=result.queries[:_SHOWN_QUERIES]
  )


def _picture(path: str) -> str:
  """Returns a small picture of an image file as an address; '' where it cannot be shown."""
  try:
    pixels, _ = decode(Path(path).read_bytes())
  except (OSError, ValueError):  # it was moved, or no longer what it was
    return ""
  image = Image.fromarray(np.ascontiguousarray(pixels))
  image.thumbnail((2 * _HEIGHT, _HEIGHT))
  return photograph_uri(np.asarray(image))
