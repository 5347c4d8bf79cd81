"""The lines of Python that run an exported network; the model card and `model.json` show them."""

from collections.abc import Iterable

from magnifier_jax.export.layout import ONNX_FILE, STABLEHLO_FILE
from magnifier_jax.export.signature import INPUT_NAME, Signature


def example_lines(signature: Signature, files: Iterable[str]) -> list[str]:
  """Returns a program that embeds an image file; it is to be run in the exported folder.

  Args:
    signature: of the exported files.
    files: their names; of several the ONNX file is shown.
  """
  imports, network, run = _onnx() if ONNX_FILE in files else _stablehlo()
  return [
    *imports,
    "",
    'model = json.load(open("model.json"))',
    network,
    "",
    "def embed(path):",
    '  photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")',
    '  height, width = model["input"]["size_hw"]',
    "  pixels = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR))",
    *(f"  {line}" for line in _input(signature)),
    f"  return {run}  # [{signature.width}], of length 1",
  ]


def _onnx() -> tuple[list[str], str, str]:
  imports = ["import json, onnxruntime", "import numpy as np", "from PIL import Image, ImageOps"]
  network = f'network = onnxruntime.InferenceSession("{ONNX_FILE}")'
  return imports, network, f'network.run(None, {{"{INPUT_NAME}": images}})[0][0]'


def _stablehlo() -> tuple[list[str], str, str]:
  imports = ["import json, jax.export", "import numpy as np", "from PIL import Image, ImageOps"]
  network = f'network = jax.export.deserialize(bytearray(open("{STABLEHLO_FILE}", "rb").read()))'
  return imports, network, "np.asarray(network.call(images))[0]"


def _input(signature: Signature) -> list[str]:
  if signature.input == "uint8":
    return ["images = pixels[None]  # normalised inside"]
  return [
    'mean, std = np.float32(model["input"]["mean"]), np.float32(model["input"]["std"])',
    "images = ((pixels - mean) / std).transpose(2, 0, 1)[None]",
  ]
