"""Galleries by where they lie: a folder, or an address of LanceDB."""

from pathlib import Path
from typing import TypeAlias

from magnifier_jax.files.user_path import user_path
from magnifier_jax.retrieval.embedder import Embedder
from magnifier_jax.retrieval.gallery import Gallery
from magnifier_jax.retrieval.gallery_files import MANIFEST
from magnifier_jax.retrieval.lance_gallery import LOCAL, LanceGallery, exists

AnyGallery: TypeAlias = Gallery | LanceGallery
Place: TypeAlias = Path | str
"""A folder of a local gallery, or an address of one in LanceDB."""

_SCHEMES = (LOCAL, "s3://", "gs://", "az://")


def gallery_place(text: str) -> Place:
  """Argument type: the place of a gallery."""
  return text if text.startswith(_SCHEMES) else user_path(text)


def open_gallery(place: Place) -> AnyGallery:
  """Opens a gallery.

  Raises:
    GalleryError: when there is none, it is damaged, or cannot be reached.
  """
  return LanceGallery.open(place) if isinstance(place, str) else Gallery.open(place)


def open_or_create(place: Place, network: Embedder, source: str) -> AnyGallery:
  """Opens the gallery of a place, or makes one where there is none.

  Args:
    place: of the gallery.
    network: whose vectors it holds, or is to hold; not compared here.
    source: path of that network.

  Raises:
    GalleryError: when it is damaged or cannot be reached, or something else is there.
    WriteError: when it cannot be written.
  """
  if isinstance(place, str):
    if exists(place):
      return LanceGallery.open(place)
    return LanceGallery.create(place, network, source)
  if (place / MANIFEST).exists():
    return Gallery.open(place)
  return Gallery.create(place, network, source)
