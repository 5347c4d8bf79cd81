r"""Embeds the images of a folder or a CSV file with a trained network, into a gallery on disk.

  python -m magnifier_jax.tools.embed --network=runs/cuhk03 --images=photos/ --output=people
  python -m magnifier_jax.tools.embed --network=runs/cuhk03 --images=photos.csv --output=people

The same command goes on where it was stopped: images whose path is in the gallery are left out. So
more images are added by naming them. Images that cannot be read are listed; --strict then ends with
exit code 1. --format=npz writes one file of arrays in place of a gallery.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from magnifier_jax.devices.compilation_cache import use_compilation_cache
from magnifier_jax.errors import UserError
from magnifier_jax.files.user_path import user_path
from magnifier_jax.files.whole_file import check_writable, replacing
from magnifier_jax.retrieval.embedded import EmbeddedImages, concatenate
from magnifier_jax.retrieval.embedder import BATCH_SIZE, Embedder, load
from magnifier_jax.retrieval.gallery_place import (
  AnyGallery,
  Place,
  gallery_place,
  open_or_create,
)
from magnifier_jax.retrieval.listed_images import ListedImage, list_images
from magnifier_jax.retrieval.network import name_of
from magnifier_jax.tools.program import add_checkpoint, check_new, make_parser, run_tool
from magnifier_jax.workdir.metrics_log import Progress, say

_COMMIT_ROWS = 1024  # rows that are written at once; of 4,096 numbers they take 16 MB
_COMMIT_SECONDS = 20  # what a kill may cost
_REPORT_SECONDS = 10


class EmbedError(UserError):
  """The command line asks for something that cannot be embedded."""


def embed_to_gallery(
  embedder: Embedder, images: Sequence[ListedImage], place: Place, source: Path
) -> tuple[int, int]:
  """Embeds images that a gallery does not have yet, and adds them.

  Args:
    embedder: with the gallery's network.
    images: to embed.
    place: of the gallery; it is made where there is none.
    source: of the network.

  Returns:
    How many images the gallery has, and how many failed.

  Raises:
    GalleryError: when the gallery is of another network, or damaged.
    WriteError: when it cannot be written.
  """
  network = embedder.network
  gallery = open_or_create(place, embedder, str(source.absolute()))
  gallery.check_network(network.weights_sha256, network.branches, name_of(network))
  known = set(gallery.column("path").tolist())
  wanted = _Some(images, [i for i, image in enumerate(images) if image.path not in known])
  del known
  if len(wanted) < len(images):
    say(f"{place} has {len(images) - len(wanted):,} of the images already")
  added = failed = 0
  for part in _in_commits(_with_progress(embedder, wanted)):
    _add(gallery, part, wanted)
    added += len(part)
    failed += len(part.failed)
  say(f"{place}: {added:,} images added, {len(gallery):,} in all")
  return len(gallery), failed


class _Some(Sequence[ListedImage]):
  """Some of the images, by their numbers."""

  def __init__(self, images: Sequence[ListedImage], numbers: Sequence[int]):
    self._images, self._numbers = images, np.array(numbers, np.int64)

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, index: int) -> ListedImage:
    return self._images[self._numbers[index]]


def _add(gallery: AnyGallery, part: EmbeddedImages, images: Sequence[ListedImage]) -> None:
  """Adds embedded images with what is known of them."""
  rows = [images[i] for i in part.position]
  gallery.add(
    # Their own number from here on: what is known comes row by row.
    dataclasses.replace(part, position=np.arange(len(part)), failed=()),
    person=[row.person for row in rows],
    camera=[row.camera for row in rows],
    time=[row.time for row in rows],
    track=[row.track for row in rows],
  )


def embed_to_file(embedder: Embedder, images: Sequence[ListedImage], file: Path) -> tuple[int, int]:
  """Embeds images into one file of arrays; all vectors are in memory until it is written.

  Returns:
    How many images are in it, and how many failed.

  Raises:
    WriteError: when it cannot be written.
  """
  embedded = concatenate([embedder.embed([]), *_with_progress(embedder, images)])
  rows = [images[i] for i in embedded.position]
  with replacing(file) as unfinished:
    np.savez(
      unfinished,
      whole=embedded.whole,
      branches=np.array(list(embedded.branch_widths)),
      branch_widths=np.array(list(embedded.branch_widths.values())),
      weights_sha256=np.array(embedded.weights_sha256),
      path=np.array(embedded.path, str),
      sha256=np.array(embedded.sha256, str),
      person=np.array([row.person for row in rows], str),
      camera=np.array([row.camera for row in rows], str),
      time=np.array([np.nan if row.time is None else row.time for row in rows]),
      track=np.array([row.track for row in rows], str),
    )
  say(f"{file}: {len(embedded):,} images")
  return len(embedded), len(embedded.failed)


def _with_progress(embedder: Embedder, images: Sequence[ListedImage]) -> Iterator[EmbeddedImages]:
  """Yields the embeddings of images, batch by batch; says how far it is and what fails."""
  progress = Progress(len(images))
  done = turned = 0
  reported = time.monotonic()
  for part in embedder.stream(image.path for image in images):
    for failure in part.failed:
      say(f"✗ {failure}")
    first, done = done == 0, done + part.num_given
    turned += int(part.turned.sum())
    progress.update(done)
    if first:
      progress.restart()  # the network is compiled
    if time.monotonic() - reported > _REPORT_SECONDS and done < len(images):
      reported = time.monotonic()
      say(
        f"  {done:,} of {len(images):,} images, {progress.rate:,.0f} a second, "
        f"{progress.left()} left"
      )
    yield part
  if turned:
    say(f"{turned:,} images were turned upright, as their EXIF data say")


def _in_commits(parts: Iterator[EmbeddedImages]) -> Iterator[EmbeddedImages]:
  """Yields batches put together, for few writes that lose little when they are cut off."""
  waiting: list[EmbeddedImages] = []
  since = time.monotonic()
  for part in parts:
    waiting.append(part)
    late = time.monotonic() - since > _COMMIT_SECONDS
    if late or sum(map(len, waiting)) >= _COMMIT_ROWS:
      yield concatenate(waiting)
      waiting, since = [], time.monotonic()
  if waiting:
    yield concatenate(waiting)


def main(argv: Sequence[str]) -> int:
  """Embeds as the arguments say; returns the exit code."""
  options = _parser().parse_args(argv)
  listed = list_images(options.images)
  _check_output(options)
  for unused in listed.unused:
    say(f"note: {unused}")
  if listed.repeated:
    say(f"note: {listed.repeated:,} rows name an image that stands above; the first one counts")
  use_compilation_cache(None)
  embedder = load(options.network, options.checkpoint, options.batch_size)
  say(f"{len(listed.images):,} images; network: {name_of(embedder.network)}")
  if options.format == "npz":
    embedded, failed = embed_to_file(embedder, listed.images, options.output)
  else:
    embedded, failed = embed_to_gallery(embedder, listed.images, options.output, options.network)
  if failed:
    say(f"{failed:,} images could not be embedded; they are listed above, with ✗")
  if not embedded:
    raise EmbedError(
      f"--images: none of the {failed:,} images could be embedded; they are listed above"
    )
  return 1 if failed and options.strict else 0


def _check_output(options: argparse.Namespace) -> None:
  if options.format == "npz":
    if not isinstance(options.output, Path) or options.output.suffix != ".npz":
      raise EmbedError(f"--output: {options.output} must end in .npz for --format=npz")
    check_new(options.output, options.overwrite)
    check_writable(options.output)
  elif not isinstance(options.output, Path):
    return
  elif options.output.suffix == ".npz" or options.output.is_file():
    raise EmbedError(f"--output: {options.output} must be a folder; --format=npz writes a file")


def _parser() -> argparse.ArgumentParser:
  parser = make_parser("embed", __doc__)
  add = parser.add_argument
  path = {"type": user_path, "required": True, "metavar": "PATH"}
  add("--network", **path, help="a workdir, an exported folder or model.onnx")
  add(
    "--images",
    **path,
    help="a folder; or a CSV file with the column image and perhaps person, camera, time, track",
  )
  add(
    "--output",
    type=gallery_place,
    required=True,
    metavar="PLACE",
    help="the gallery: a folder, or lance://PATH or s3://…; or the file for --format=npz",
  )
  add("--format", choices=("gallery", "npz"), default="gallery", help="default: %(default)s")
  add_checkpoint(parser)
  add("--batch_size", type=int, default=BATCH_SIZE, metavar="N", help="default: %(default)s")
  add("--strict", action="store_true", help="exit code 1 when an image could not be embedded")
  add("--overwrite", action="store_true", help="replace the file of --format=npz")
  return parser


def cli() -> None:
  """Entry point."""
  logging.set_verbosity(logging.ERROR)  # Orbax warns that what is opened for reading is read-only
  run_tool(main, "interrupted; the same command goes on from what the gallery has")


if __name__ == "__main__":
  cli()
