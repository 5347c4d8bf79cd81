"""A trained network as an ONNX graph, BatchNorm folded into the convolutions before it."""

from typing import Any

import numpy as np

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.config import ModelConfig
from magnifier_jax.export.network_arrays import NetworkArrays
from magnifier_jax.export.onnx_builder import OnnxBuilder
from magnifier_jax.export.onnx_recurrence import last_hidden_state
from magnifier_jax.export.signature import INPUT_NAME, OUTPUT_NAME, Signature
from magnifier_jax.models.generalized_mean import GeneralizedMean

PART_LOGITS = "part_logits"  # the value [B, S, h, w] that a body part is chosen by


def build_model(arrays: NetworkArrays, config: ModelConfig, signature: Signature) -> Any:
  """Builds the graph of a network.

  Args:
    arrays: of the whole network.
    config: which network it is.
    signature: which branches the output has, and what the input is.

  Returns:
    An `onnx.ModelProto` of opset 17, for any number of images.

  Raises:
    ExportError: when onnx is not installed.
  """
  graph = OnnxBuilder()
  stage3, stage4 = _backbone(graph, _images(graph, signature), arrays.module("backbone"), config)
  embeddings = []
  for branch in signature.branches:
    module = arrays.module(f"{branch}_branch")
    if branch == "global":
      embeddings.append(_global_branch(graph, stage4, module, config))
    elif branch == "adversarial":
      embeddings.append(_adversarial_branch(graph, stage3, module))
    else:
      parts = _parts(graph, stage4, arrays.module("part_segmentation"), config)
      embeddings.append(_fusion_branch(graph, stage3, parts, module, config))
  _normalize_length(graph, embeddings)
  return graph.model(signature)


def _images(graph: OnnxBuilder, signature: Signature) -> str:
  """Adds what makes normalised images [B, 3, H, W] of the input."""
  if signature.input != "uint8":
    return INPUT_NAME
  x = graph.add("Cast", [INPUT_NAME], "pixels", to=1)  # FLOAT
  mean, std = (
    graph.constant(name, np.reshape(values, (1, 1, 1, 3)).astype(np.float32))
    for name, values in (("mean", signature.pixel_mean), ("std", signature.pixel_std))
  )
  x = graph.add("Sub", [x, mean], "centred")
  x = graph.add("Div", [x, std], "normalized")
  return graph.add("Transpose", [x], "channels_first", perm=[0, 3, 1, 2])


def _backbone(
  graph: OnnxBuilder, x: str, backbone: NetworkArrays, config: ModelConfig
) -> tuple[str, str]:
  """Adds the ResNet; returns stage 3 and stage 4."""
  x = _conv_bn(graph, x, backbone.module("conv1"), backbone.module("bn1"), stride=2)
  if config.stem_relu:
    x = _relu(graph, x)
  x = graph.add(
    "MaxPool",
    [x],
    f"{backbone.name}/max_pool",
    kernel_shape=[3, 3],
    strides=[2, 2],
    pads=[1, 1, 1, 1],
  )
  stages = []
  for number, stride in enumerate((1, 2, 2, config.last_stride), start=1):
    for index, block in enumerate(backbone.module(f"stage{number}").modules("block")):
      x = _block(graph, x, block, stride if index == 0 else 1)
    stages.append(x)
  return stages[2], stages[3]


def _block(graph: OnnxBuilder, x: str, block: NetworkArrays, stride: int) -> str:
  """Adds a residual block, a bottleneck or a basic one."""
  residual = x
  if "shortcut" in block:
    shortcut = block.module("shortcut")
    residual = _conv_bn(graph, x, shortcut.module("conv"), shortcut.module("bn"), stride)
  # The stride is on the first 3×3 convolution.
  strides = {"conv1": 1, "conv2": stride, "conv3": 1}
  if "conv3" not in block:
    strides = {"conv1": stride, "conv2": 1}
  *before, last = strides
  for name in before:
    x = _conv_bn(graph, x, block.module(name), block.module(f"bn{name[-1]}"), strides[name])
    x = _relu(graph, x)
  x = _conv_bn(graph, x, block.module(last), block.module(f"bn{last[-1]}"), strides[last])
  return _relu(graph, graph.add("Add", [x, residual], f"{block.name}/sum"))


def _conv_bn(
  graph: OnnxBuilder, x: str, conv: NetworkArrays, bn: NetworkArrays, stride: int = 1
) -> str:
  """Adds a convolution and the BatchNorm after it, as one convolution."""
  scale, offset = bn.affine()
  kernel = conv.kernel() * scale[:, None, None, None]
  return graph.convolve(x, kernel, offset, conv.name, stride)


def _relu(graph: OnnxBuilder, x: str) -> str:
  return graph.add("Relu", [x], f"{x}/relu")


def _global_branch(
  graph: OnnxBuilder, stage4: str, branch: NetworkArrays, config: ModelConfig
) -> str:
  if config.global_pooling == "gem":
    x = _generalized_mean(graph, stage4, branch.module("pool"))
  else:
    x = graph.add("GlobalAveragePool", [stage4], f"{branch.name}/average_pool")
  x = graph.add("Flatten", [x], f"{branch.name}/features")
  return _bnneck(graph, x, branch)


def _generalized_mean(graph: OnnxBuilder, x: str, pool: NetworkArrays) -> str:
  name, power = pool.name, pool.array("power")
  least = graph.constant(f"{name}/epsilon", np.float32(GeneralizedMean.epsilon).reshape(1))
  powers = (graph.constant(f"{name}/{n}", p) for n, p in (("power", power), ("root", 1 / power)))
  x = graph.add("Max", [x, least], f"{name}/positive")
  x = graph.add("Pow", [x, next(powers)], f"{name}/powers")
  x = graph.add("GlobalAveragePool", [x], f"{name}/average_pool")
  return graph.add("Pow", [x, next(powers)], f"{name}/mean")


def _adversarial_branch(graph: OnnxBuilder, stage3: str, branch: NetworkArrays) -> str:
  x = _block(graph, stage3, branch.module("bottleneck"), stride=1)
  x = graph.add("GlobalMaxPool", [x], f"{branch.name}/max_pool")
  x = _conv_bn(graph, x, branch.module("reduce"), branch.module("bnneck"))
  return graph.add("Flatten", [x], f"{branch.name}/embedding")


def _parts(graph: OnnxBuilder, stage4: str, head: NetworkArrays, config: ModelConfig) -> str:
  """Adds the part segmentation head; returns the part [B, 1, h, w] of each pixel of stage 3.

  The head doubles stage 4's size. Where stage 4 is as large as stage 3, every other row and column
  of that is wanted, which nothing but the kernel's middle reaches.
  """
  name, upsample = head.name, head.module("upsample").array("kernel")  # [C, 3, 3, F]
  scale, offset = head.module("bn").affine()
  if config.last_stride == 1:
    middle = (upsample[:, 1, 1] * scale).T[:, :, None, None]
    x = graph.convolve(stage4, middle, offset, f"{name}/upsample")
  else:
    kernel = graph.constant(f"{name}/upsample/kernel", (upsample * scale).transpose(0, 3, 1, 2))
    x = graph.add(
      "ConvTranspose",
      [stage4, kernel, graph.constant(f"{name}/upsample/bias", offset)],
      f"{name}/upsample",
      kernel_shape=[3, 3],
      strides=[2, 2],
      pads=[1, 1, 1, 1],
      output_padding=[1, 1],
    )
  classifier = head.module("classifier")
  kernel = classifier.array("kernel").T[:, :, None, None]
  logits = graph.convolve(_relu(graph, x), kernel, classifier.array("bias"), PART_LOGITS)
  # The first of equal classes, as JAX's argmax takes.
  return graph.add("ArgMax", [logits], "parts", axis=1, keepdims=1, select_last_index=0)


def _fusion_branch(
  graph: OnnxBuilder, stage3: str, parts: str, branch: NetworkArrays, config: ModelConfig
) -> str:
  x = _block(graph, stage3, branch.module("bottleneck"), stride=1)
  pooled = [_pool_part(graph, x, parts, part, branch.name) for part in range(NUM_PARTS)]
  hidden = last_hidden_state(graph, pooled, branch.module("fusion"), config.fusion_cell)
  return _bnneck(graph, hidden, branch)


def _pool_part(graph: OnnxBuilder, x: str, parts: str, part: int, branch: str) -> str:
  """Adds the maxima [B, C] of x ≥ 0 over a part; zeros where nobody has it."""
  name = f"{branch}/part{part}"
  is_part = graph.add("Equal", [parts, graph.constant(f"{name}/number", np.int64(part))], name)
  mask = graph.add("Cast", [is_part], f"{name}/mask", to=1)  # FLOAT
  pooled = graph.add("GlobalMaxPool", [graph.add("Mul", [x, mask], f"{name}/kept")], f"{name}/max")
  return graph.add("Flatten", [pooled], f"{name}/features")


def _bnneck(graph: OnnxBuilder, features: str, branch: NetworkArrays) -> str:
  scale, offset = branch.module("bnneck").affine()
  name = f"{branch.name}/bnneck"
  x = graph.add("Mul", [features, graph.constant(f"{name}/scale", scale[None])], f"{name}/scaled")
  offset = graph.constant(f"{name}/offset", offset[None])
  return graph.add("Add", [x, offset], f"{branch.name}/embedding")


def _normalize_length(graph: OnnxBuilder, embeddings: list[str]) -> str:
  """Adds the output: all branches side by side, divided by their length together."""
  whole = graph.add("Concat", embeddings, "whole", axis=1)
  length = graph.add("ReduceL2", [whole], "length", axes=[1], keepdims=1)
  # A vector of zeros stays as it is.
  tiny = graph.constant("tiny", np.float32(np.finfo(np.float32).tiny).reshape(1, 1))
  positive = graph.add("Max", [length, tiny], "positive_length")
  return graph.add("Div", [whole, positive], OUTPUT_NAME)
