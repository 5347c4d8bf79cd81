"""Part labels from any human-parsing network in an ONNX file, through onnxruntime."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from magnifier_jax.part_labelling.class_maps import ClassMap
from magnifier_jax.part_labelling.labeller import (
  LabellingError,
  LabelMethod,
  PersonImage,
  read_model,
)
from magnifier_jax.part_labelling.score_grids import Box, classes_of_grid, classes_of_scores

_DEFAULT_SIZE_HW = (512, 512)  # where the network takes every size
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclasses.dataclass(frozen=True)
class OnnxOptions:
  """How images go into the network, and what of it comes out."""

  input_size_hw: tuple[int, int] | None = None  # None: what the file says, or 512 × 512
  pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # RGB, of 0…255
  pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
  channel_order: Literal["rgb", "bgr"] = "rgb"
  fit: Literal["pad", "stretch"] = "pad"  # pad: the aspect ratio stays, the rest is of mean colour
  resize: Literal["bilinear", "nearest"] = "bilinear"  # of the class scores
  output: str = ""  # name; '' takes the first that has the classes of the map


class _Layout(NamedTuple):
  """What the network takes and gives."""

  input_name: str
  dtype: type
  channels_first: bool
  size_hw: tuple[int, int]
  output_name: str
  class_axis: int | None  # None: the output is the class of each cell


class OnnxLabeller:
  """Labels images with a human-parsing network.

  Args:
    model: ONNX file; one input of images, NCHW or NHWC; an output of class scores in either order,
      or of classes (1, h, w).
    class_map: what becomes of the network's classes.
    options: of the network.

  Raises:
    LabellingError: when onnxruntime is not installed, the file is not such a network, or its
      classes are not those of the map.
  """

  batch_size = 1  # files are often exported for one image

  def __init__(self, model: Path, class_map: ClassMap, options: OnnxOptions | None = None):
    options = options or OnnxOptions()
    runtime = _import_runtime()
    content = read_model(model, "--model")
    try:
      session = runtime.InferenceSession(content, providers=runtime.get_available_providers())
    except Exception as error:  # onnxruntime's exceptions have no common base
      raise LabellingError(
        f"--model: {model} is not an ONNX file that runs here: {error}"
      ) from error
    self._session, self._map, self._options = session, class_map, options
    self._layout = _find_layout(session, model, class_map, options)
    self.method = LabelMethod(
      name="onnx",
      model=str(model),
      sha256=hashlib.sha256(content).hexdigest(),
      options=dataclasses.asdict(options)
      | {"classes": list(class_map.targets), "input_size_hw": list(self._layout.size_hw)},
    )

  def label(self, images: Sequence[PersonImage]) -> list[np.ndarray | None]:
    """See `PartLabeller`."""
    return [self._label(image.pixels) for image in images]

  def _label(self, pixels: np.ndarray) -> np.ndarray | None:
    layout, options = self._layout, self._options
    tensor, box = _network_input(pixels, layout, options)
    (output,) = self._session.run([layout.output_name], {layout.input_name: tensor})
    output, size_hw = output[0], pixels.shape[:2]
    if layout.class_axis is None:
      classes = classes_of_grid(output, _on_grid(box, output.shape, layout), size_hw)
      if not 0 <= classes.min() <= classes.max() < self._map.num_classes:
        raise LabellingError(
          f"--classes: {self._map.name} has {self._map.num_classes} classes, but the network found "
          f"class {classes.max()}"
        )
    else:
      scores = np.moveaxis(output, layout.class_axis - 1, 0)
      grid = _on_grid(box, scores.shape[1:], layout)
      classes = classes_of_scores(scores, grid, size_hw, options.resize)
    parts = self._map.parts(classes)
    return parts if parts.any() else None


def _import_runtime() -> ModuleType:
  try:
    import onnxruntime
  except ImportError as error:
    raise LabellingError(
      "onnxruntime is not installed; pip install 'magnifier-jax[onnx]', or pip install onnxruntime"
    ) from error
  onnxruntime.set_default_logger_severity(3)  # errors; what it warns of nobody can mend
  return onnxruntime


def _find_layout(session: Any, model: Path, class_map: ClassMap, options: OnnxOptions) -> _Layout:
  """Finds out what a network takes and gives, by running it once."""
  inputs = session.get_inputs()
  if len(inputs) != 1:
    raise LabellingError(f"--model: {model} has {len(inputs)} inputs; it must take images alone")
  (image,) = inputs
  shape = image.shape
  if len(shape) != 4 or 3 not in (shape[1], shape[3]) or image.type not in _DTYPES:
    raise LabellingError(
      f"--model: the input {image.name!r} of {model} is {image.type} of shape {shape}; it must be "
      "float of shape (1, 3, H, W) or (1, H, W, 3)"
    )
  if isinstance(shape[0], int) and shape[0] != 1:
    raise LabellingError(
      f"--model: {model} takes batches of {shape[0]} images; export it for 1, or for any number"
    )
  channels_first = shape[1] == 3
  size_hw = _input_size(shape[2:] if channels_first else shape[1:3], model, options)
  zeros = np.zeros((1, 3, *size_hw) if channels_first else (1, *size_hw, 3), _DTYPES[image.type])
  output_name, class_axis = _find_output(
    session, {image.name: zeros}, model, class_map, options.output, channels_first
  )
  return _Layout(image.name, _DTYPES[image.type], channels_first, size_hw, output_name, class_axis)


def _input_size(
  shape: Sequence[int | str | None], model: Path, options: OnnxOptions
) -> tuple[int, int]:
  """Returns the network's own size where it has one, else the user's, else the default."""
  wanted = options.input_size_hw or _DEFAULT_SIZE_HW
  size_hw = tuple(
    own if isinstance(own, int) else size for own, size in zip(shape, wanted, strict=True)
  )
  if options.input_size_hw not in (None, size_hw):
    raise LabellingError(
      f"--input_size: {model} takes {size_hw[0]}x{size_hw[1]} pixels only (height x width)"
    )
  return size_hw


def _find_output(
  session: Any,
  feed: dict[str, np.ndarray],
  model: Path,
  class_map: ClassMap,
  wanted: str,
  channels_first: bool,
) -> tuple[str, int | None]:
  """Returns the name and the class axis of the output that has the classes of the map."""
  names = [output.name for output in session.get_outputs()]
  if wanted and wanted not in names:
    raise LabellingError(f"--output: {model} has no output {wanted!r}, but {', '.join(names)}")
  names = [wanted] if wanted else names
  try:
    outputs = dict(zip(names, session.run(names, feed), strict=True))
  except Exception as error:  # onnxruntime's exceptions have no common base
    size = " × ".join(map(str, next(iter(feed.values())).shape))
    raise LabellingError(f"--input_size: {model} does not run on {size}: {error}") from error
  for name, output in outputs.items():
    axes = (1, 3) if channels_first else (3, 1)
    axis = next(
      (a for a in axes if output.ndim == 4 and output.shape[a] == class_map.num_classes), None
    )
    is_classes = output.ndim == 3 and np.issubdtype(output.dtype, np.integer)
    if axis is not None or is_classes:
      return name, axis
  shapes = ", ".join(f"{name} {output.shape}" for name, output in outputs.items())
  raise LabellingError(
    f"--classes: {class_map.name} has {class_map.num_classes} classes, but {model} gives {shapes}; "
    "scores have the shape (1, classes, h, w) or (1, h, w, classes), classes are whole numbers "
    "(1, h, w)"
  )


def _network_input(
  pixels: np.ndarray, layout: _Layout, options: OnnxOptions
) -> tuple[np.ndarray, Box]:
  """Returns the normalised input, and where the image lies on it, in pixels."""
  height, width = layout.size_hw
  if options.fit == "stretch":
    box = Box(0, 0, width, height)
  else:
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    inner_h, inner_w = (max(1, round(scale * size)) for size in pixels.shape[:2])
    left, top = (width - inner_w) // 2, (height - inner_h) // 2
    box = Box(left, top, left + inner_w, top + inner_h)
  resized = Image.fromarray(pixels).resize(
    (box.right - box.left, box.bottom - box.top), Image.Resampling.BILINEAR
  )
  tensor = np.zeros((height, width, 3), np.float32)
  tensor[box.top : box.bottom, box.left : box.right] = (
    np.asarray(resized, np.float32) - np.array(options.pixel_mean, np.float32)
  ) / np.array(options.pixel_std, np.float32)
  if options.channel_order == "bgr":
    tensor = tensor[..., ::-1]
  if layout.channels_first:
    tensor = tensor.transpose(2, 0, 1)
  return np.ascontiguousarray(tensor[None], layout.dtype), box


def _on_grid(box: Box, grid_hw: tuple[int, ...], layout: _Layout) -> Box:
  height, width = layout.size_hw
  return box.scaled(grid_hw[1] / width, grid_hw[0] / height)
