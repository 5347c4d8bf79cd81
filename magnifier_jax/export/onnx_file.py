"""An ONNX file's metadata: added to the file without touching what was checked, and read back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnifier_jax.export.layout import METADATA_KEY
from magnifier_jax.export.packages import import_onnx
from magnifier_jax.files.whole_file import writing


def append_metadata(file: Path, description: Mapping[str, Any]) -> None:
  """Adds a description to an ONNX file's metadata.

  Two protocol buffers one after the other are one with the fields of both, so every byte that the
  gate has read stays where it is.

  Raises:
    WriteError: when the file cannot be written.
  """
  onnx = import_onnx()
  addition = onnx.ModelProto()
  onnx.helper.set_model_props(addition, {METADATA_KEY: json.dumps(description)})
  with writing(file), file.open("ab") as stream:
    stream.write(addition.SerializeToString())
