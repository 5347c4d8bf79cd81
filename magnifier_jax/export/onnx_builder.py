"""Puts an ONNX graph together, operation by operation; every value has the name of what made it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from magnifier_jax.export.packages import import_onnx
from magnifier_jax.export.signature import INPUT_NAME, OUTPUT_NAME, Signature

OPSET = 17
_IR_VERSION = 8  # that of opset 17: readers refuse files of a newer one than they know


class OnnxBuilder:
  """Collects the operations and the constants of a graph.

  Methods that add an operation take names of values and return the name of the result.
  """

  def __init__(self):
    self._onnx = import_onnx()
    self._nodes: list[Any] = []
    self._constants: dict[str, Any] = {}

  def add(
    self, operation: str, inputs: Sequence[str], name: str, outputs: int = 1, **attributes: Any
  ) -> str | list[str]:
    """Adds any operation; with several outputs their names end in /0, /1, …"""
    names = [name] if outputs == 1 else [f"{name}/{i}" for i in range(outputs)]
    node = self._onnx.helper.make_node(operation, list(inputs), names, name=name, **attributes)
    self._nodes.append(node)
    return names[0] if outputs == 1 else names

  def constant(self, name: str, values: np.ndarray) -> str:
    """Adds an array, once for a name; of floating-point numbers float32 is kept."""
    if name not in self._constants:
      values = np.asarray(values)
      if values.dtype.kind == "f":
        values = values.astype(np.float32)
      tensor = self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
      self._constants[name] = tensor
    return name

  def convolve(
    self, x: str, kernel: np.ndarray, bias: np.ndarray, name: str, stride: int = 1
  ) -> str:
    """Adds a convolution that is padded by k // 2.

    Args:
      x: [B, C, H, W].
      kernel: [F, C, k, k].
      bias: [F].
      name: of the result.
      stride: of both axes.
    """
    size = kernel.shape[-1]
    inputs = [x, self.constant(f"{name}/kernel", kernel), self.constant(f"{name}/bias", bias)]
    return self.add(
      "Conv",
      inputs,
      name,
      kernel_shape=[size, size],
      strides=[stride, stride],
      pads=[size // 2] * 4,
    )

  def model(self, signature: Signature) -> Any:
    """Returns the `ModelProto`, with the input and the output of a signature.

    Raises:
      onnx.checker.ValidationError: when the graph is not valid.
    """
    helper, types = self._onnx.helper, self._onnx.TensorProto
    kind = types.UINT8 if signature.input == "uint8" else types.FLOAT
    images = helper.make_tensor_value_info(INPUT_NAME, kind, signature.input_shape)
    output_shape = (signature.input_shape[0], signature.width)
    embedding = helper.make_tensor_value_info(OUTPUT_NAME, types.FLOAT, output_shape)
    graph = helper.make_graph(
      self._nodes, "magnifiernet", [images], [embedding], list(self._constants.values())
    )
    model = helper.make_model(
      graph,
      producer_name="magnifier_jax",
      opset_imports=[helper.make_opsetid("", OPSET)],
      ir_version=_IR_VERSION,
    )
    self._onnx.checker.check_model(model, full_check=True)
    return model
