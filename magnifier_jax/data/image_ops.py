"""Decodes, resizes and augments one image and its part labels, in TensorFlow."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from magnifier_jax.config import DataConfig
from magnifier_jax.data.tensorflow_on_cpu import tf

_LABEL_STRIDE = 8  # part labels leave the pipeline at an eighth of the image's size
# The pixels of each stride that a resize to an eighth reads: nearest takes pixel 4, bilinear lies
# half way between 3 and 4.
_SAMPLED_PIXELS = {"nearest": (4,), "bilinear": (3, 4)}
_GREY = (0.299, 0.587, 0.114)  # of RGB, as Pillow's mode L


class DecodingError(ValueError):
  """TensorFlow cannot decode a file; the message says why."""


class Change(NamedTuple):
  """What happens to one image: a row of `augmentation.Augmentation`, as tensors."""

  colour: tf.Tensor  # (3,) float32: factors of brightness, contrast and saturation
  flip: tf.Tensor  # () bool
  crop: tf.Tensor  # (2,) int32: top and left in the padded image
  erased: tf.Tensor  # (4,) int32: top, left, height, width; height 0 erases nothing


def decode_file(encoded: bytes, channels: int) -> np.ndarray:
  """Decodes a file at once, by the decoder of the pipeline; from any thread.

  Args:
    encoded: a JPEG or PNG file.
    channels: C, 1 or 3.

  Returns:
    (H, W, C) uint8.

  Raises:
    DecodingError: when the pipeline could not decode it.
  """
  with _decoding_errors():
    return _decode(encoded, channels).numpy()


def decode_files(encoded: Sequence[bytes], channels: int) -> np.ndarray:
  """Decodes files at once, by the decoder of the pipeline; from any thread.

  Args:
    encoded: N JPEG or PNG files.
    channels: 1 or 3.

  Returns:
    Of each file its height, its width and the largest value of its pixels, (N, 3) int32.

  Raises:
    DecodingError: when the pipeline could not decode one of them.
  """
  with _decoding_errors():
    return _facts(channels)(tf.constant(encoded, tf.string, shape=(len(encoded),))).numpy()


@functools.cache
def _facts(channels: int) -> Callable[[tf.Tensor], tf.Tensor]:
  """Returns a compiled `decode_files`: it lets other threads run while it decodes."""

  def look(encoded: tf.Tensor) -> tf.Tensor:
    pixels = _decode(encoded, channels)
    largest = tf.cast(tf.reduce_max(pixels), tf.int32)
    return tf.concat([tf.shape(pixels)[:2], largest[None]], axis=0)

  return tf.function(
    lambda encoded: tf.map_fn(
      look, encoded, fn_output_signature=tf.TensorSpec((3,), tf.int32), parallel_iterations=1
    ),
    input_signature=[tf.TensorSpec((None,), tf.string)],
    autograph=False,
  )


@contextlib.contextmanager
def _decoding_errors() -> Iterator[None]:
  try:
    yield
  except tf.errors.OpError as error:
    # "{{function_node …}} REASON [Op:DecodeJpeg]"
    reason = error.message.rpartition("}} ")[2].partition(" [Op:")[0]
    raise DecodingError(reason.removesuffix(".")) from error


def evaluation_image(encoded: tf.Tensor, image_size_hw: tuple[int, int]) -> tf.Tensor:
  """Decodes and resizes an image.

  Args:
    encoded: scalar string, a JPEG or PNG file.
    image_size_hw: H and W in pixels.

  Returns:
    (H, W, 3) uint8.
  """
  return _resize(_decode(encoded, channels=3), image_size_hw)


def training_image(encoded: tf.Tensor, change: Change, config: DataConfig) -> tf.Tensor:
  """Decodes, resizes and augments a training image.

  Args:
    encoded: scalar string, a JPEG or PNG file.
    change: what happens to it.
    config: reads `image_size_hw`, `pixel_mean` and, of `augmentation`, `pad_pixels` and whether
      colours change.

  Returns:
    (H, W, 3) uint8. Padding is black; the erased rectangle has the mean colour, which becomes 0 by
    normalisation.
  """
  image = evaluation_image(encoded, config.image_size_hw)
  if config.augmentation.changes_colours:
    image = change_colours(image, change.colour)
  image = tf.cond(change.flip, lambda: tf.reverse(image, [1]), lambda: image)
  pad = config.augmentation.pad_pixels
  image = tf.pad(image, [[pad, pad], [pad, pad], [0, 0]])
  image = tf.slice(image, [change.crop[0], change.crop[1], 0], [*config.image_size_hw, 3])
  mean = tf.constant([round(mean) for mean in config.pixel_mean], tf.uint8)
  return tf.cond(change.erased[2] > 0, lambda: _erase(image, change.erased, mean), lambda: image)


def change_colours(image: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
  """Multiplies brightness, then contrast, then saturation, as Pillow's `ImageEnhance`.

  That is: the pixel, its distance from the mean grey of the image, and from its own grey. Pillow
  rounds and clips after each of the three; here that happens once, at the end.

  Args:
    image: (H, W, 3) uint8.
    factors: (3,) float32 from 0 on; 1 changes nothing.

  Returns:
    (H, W, 3) uint8.
  """
  brightness, contrast, saturation = tf.unstack(factors)
  image = tf.cast(image, tf.float32)
  # All three are linear in the pixel, its grey and the mean grey.
  grey = tf.linalg.matvec(image, tf.constant(_GREY))[..., None]
  kept = brightness * contrast
  constant = brightness * (1 - contrast) * tf.reduce_mean(grey) + 0.5
  changed = kept * saturation * image + (kept * (1 - saturation) * grey + constant)
  return tf.cast(tf.clip_by_value(changed, 0, 255), tf.uint8)


def training_part_labels(encoded: tf.Tensor, change: Change, config: DataConfig) -> tf.Tensor:
  """Decodes part labels and carries the changes of their image over to them.

  The labels are those of the image's size and changes, brought to an eighth of it. Until then each
  change only moves them, so only the pixels that the last step reads are followed to the file.

  Args:
    encoded: scalar string, a PNG file of one channel with values 0…7.
    change: what happens to the image.
    config: reads `image_size_hw`, `part_label_resize`, `augmentation.pad_pixels` and
      `augmentation.erasing_part_labels`.

  Returns:
    (H/8, W/8) uint8, values 0…7. Padding is background, and so is the erased rectangle if
    `erasing_part_labels`.
  """
  labels = _decode(encoded, channels=1)[..., 0]
  height, width = config.image_size_hw
  pad = config.augmentation.pad_pixels
  rows, columns = _sampled_positions(height, config), _sampled_positions(width, config)
  covered = _is_padding(rows, height, change.crop[0] - pad)[:, None]
  covered |= _is_padding(columns, width, change.crop[1] - pad)[None, :]
  if config.augmentation.erasing_part_labels:
    covered |= _is_inside(rows, columns, change.erased)
  rows += change.crop[0] - pad
  columns += change.crop[1] - pad
  columns = tf.where(change.flip, width - 1 - columns, columns)
  labels = tf.gather(labels, _nearest(rows, height, tf.shape(labels)[0]))
  labels = tf.gather(labels, _nearest(columns, width, tf.shape(labels)[1]), axis=1)
  return _average_samples(tf.where(covered, tf.zeros((), tf.uint8), labels), config)


def _decode(encoded: tf.Tensor, channels: int) -> tf.Tensor:
  # This decoder takes PNG as well as JPEG; the accurate DCT is the one that Pillow uses.
  return tf.io.decode_jpeg(encoded, channels=channels, dct_method="INTEGER_ACCURATE")


def _resize(image: tf.Tensor, size_hw: tuple[int, int]) -> tf.Tensor:
  """Resizes bilinearly as Pillow does, up to Pillow's rounding after each axis."""
  # Interpolation keeps an added constant: half a level, added here, makes the last cast round.
  image = tf.cast(image, tf.float32) + 0.5
  # Pillow widens its filter where it shrinks; where nothing shrinks that costs three times as much.
  shrinks = tf.reduce_any(tf.shape(image)[:2] > size_hw)
  resized = tf.cond(
    shrinks,
    lambda: tf.image.resize(image, size_hw, antialias=True),
    lambda: tf.image.resize(image, size_hw),
  )
  return tf.cast(resized, tf.uint8)


def _erase(image: tf.Tensor, erased: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
  """Fills a rectangle with a colour, (C,) uint8; five times as fast as `tf.where`."""
  top, left, height, width = tf.unstack(erased)
  band = image[top : top + height]
  rectangle = tf.broadcast_to(fill, tf.stack([height, width, fill.shape[0]]))
  band = tf.concat([band[:, :left], rectangle, band[:, left + width :]], axis=1)
  return tf.ensure_shape(tf.concat([image[:top], band, image[top + height :]], axis=0), image.shape)


def _sampled_positions(size: int, config: DataConfig) -> tf.Tensor:
  """Returns the rows, or columns, that the resize to an eighth reads, in order."""
  pixels = tf.constant(_SAMPLED_PIXELS[config.part_label_resize])
  return tf.reshape(tf.range(0, size, _LABEL_STRIDE)[:, None] + pixels, [-1])


def _is_padding(positions: tf.Tensor, size: int, shift: tf.Tensor) -> tf.Tensor:
  return (positions + shift < 0) | (positions + shift >= size)


def _is_inside(rows: tf.Tensor, columns: tf.Tensor, rectangle: tf.Tensor) -> tf.Tensor:
  top, left, height, width = tf.unstack(rectangle)
  row_is_inside = (rows >= top) & (rows < top + height)
  return row_is_inside[:, None] & ((columns >= left) & (columns < left + width))[None, :]


def _nearest(positions: tf.Tensor, size: int, source_size: tf.Tensor) -> tf.Tensor:
  """Returns the source pixels that a nearest resize to `size` would copy to some positions."""
  # The middle of pixel p lies at (p + 1/2) · source_size / size; in integers this is exact.
  nearest = (2 * positions + 1) * source_size // (2 * size)
  return tf.clip_by_value(nearest, 0, source_size - 1)


def _average_samples(labels: tf.Tensor, config: DataConfig) -> tf.Tensor:
  """Averages the samples of each cell, and rounds."""
  if config.part_label_resize == "nearest":
    return labels
  height, width = (size // _LABEL_STRIDE for size in config.image_size_hw)
  cells = tf.reshape(tf.cast(labels, tf.float32), [height, 2, width, 2])
  return tf.cast(tf.round(tf.reduce_mean(cells, axis=[1, 3])), tf.uint8)
