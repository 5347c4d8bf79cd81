"""The recurrent layer over the parts in ONNX, step by step.

ONNX has an LSTM and a GRU. They order the gates otherwise, take a state of a size that has to be
computed from the batch's, and not every runtime has both; eight steps of products are the same
everywhere. They are of matrices: OpenCV 4 fails at products of more axes.
"""

from collections.abc import Sequence

import numpy as np

from magnifier_jax.export.network_arrays import NetworkArrays
from magnifier_jax.export.onnx_builder import OnnxBuilder


def last_hidden_state(
  graph: OnnxBuilder, sequence: Sequence[str], layer: NetworkArrays, cell: str
) -> str:
  """Adds an LSTM or a GRU that starts from zeros.

  Args:
    graph: to add to.
    sequence: the vectors [B, C] of the parts.
    layer: its kernels and biases, gates in PyTorch's order.
    cell: 'lstm' or 'gru'.

  Returns:
    The name of the state after the last part, [B, D].
  """
  name, parts = layer.name, len(sequence)
  # One product for all parts, one below the other.
  stacked = graph.add("Concat", sequence, f"{name}/sequence", axis=0)  # [S B, C]
  projected = _linear(graph, stacked, layer, "input", f"{name}/projected")
  steps = graph.add("Split", [projected], f"{name}/steps", outputs=parts, axis=0)
  hidden, memory = None, None
  for number, from_input in enumerate(steps):
    at = f"{name}/step{number}"
    if cell == "lstm":
      hidden, memory = _lstm_step(graph, from_input, layer, hidden, memory, at)
    else:
      hidden = _gru_step(graph, from_input, layer, hidden, at)
  return hidden


def _linear(graph: OnnxBuilder, x: str, layer: NetworkArrays, which: str, name: str) -> str:
  """Adds the product of x [N, C] with the kernel of the input or of the hidden state, and bias."""
  kernel = graph.constant(f"{layer.name}/kernel_{which}", layer.array(f"kernel_{which}"))
  bias = graph.constant(f"{layer.name}/bias_{which}", layer.array(f"bias_{which}"))
  return graph.add("Gemm", [x, kernel, bias], name)


def _lstm_step(
  graph: OnnxBuilder,
  from_input: str,
  layer: NetworkArrays,
  hidden: str | None,
  memory: str | None,
  at: str,
) -> tuple[str, str]:
  """Adds a step; returns the hidden state and the memory, of which the first step has none."""
  if hidden is None:  # of zeros nothing but the bias is left
    bias = layer.array("bias_hidden")[None]
    from_hidden = graph.constant(f"{at}/from_hidden", bias)
  else:
    from_hidden = _linear(graph, hidden, layer, "hidden", f"{at}/from_hidden")
  gates = graph.add("Add", [from_input, from_hidden], f"{at}/gates")
  i, f, g, o = graph.add("Split", [gates], f"{at}/gate", outputs=4, axis=1)
  i, o = (graph.add("Sigmoid", [gate], f"{gate}/open") for gate in (i, o))
  g = graph.add("Tanh", [g], f"{g}/candidate")
  new = graph.add("Mul", [i, g], f"{at}/new")
  if memory is not None:
    f = graph.add("Sigmoid", [f], f"{f}/open")
    kept = graph.add("Mul", [f, memory], f"{at}/kept")
    new = graph.add("Add", [kept, new], f"{at}/memory")
  return graph.add("Mul", [o, graph.add("Tanh", [new], f"{at}/shown")], f"{at}/state"), new


def _gru_step(
  graph: OnnxBuilder, from_input: str, layer: NetworkArrays, hidden: str | None, at: str
) -> str:
  """Adds a step; returns the hidden state, of which the first step has none."""
  input_r, input_z, input_n = graph.add("Split", [from_input], f"{at}/input", outputs=3, axis=1)
  if hidden is None:  # of zeros nothing but the bias is left
    biases = np.split(layer.array("bias_hidden")[None], 3, axis=1)
    from_hidden = [graph.constant(f"{at}/hidden/{i}", bias) for i, bias in enumerate(biases)]
  else:
    product = _linear(graph, hidden, layer, "hidden", f"{at}/from_hidden")
    from_hidden = graph.add("Split", [product], f"{at}/hidden", outputs=3, axis=1)
  hidden_r, hidden_z, hidden_n = from_hidden
  reset = graph.add("Sigmoid", [graph.add("Add", [input_r, hidden_r], f"{at}/r")], f"{at}/reset")
  update = graph.add("Sigmoid", [graph.add("Add", [input_z, hidden_z], f"{at}/z")], f"{at}/update")
  remembered = graph.add("Mul", [reset, hidden_n], f"{at}/remembered")
  n = graph.add("Add", [input_n, remembered], f"{at}/n")
  candidate = graph.add("Tanh", [n], f"{at}/candidate")
  one = graph.constant("one", np.float32([[1]]))
  rest = graph.add("Sub", [one, update], f"{at}/rest")
  new = graph.add("Mul", [rest, candidate], f"{at}/new")
  if hidden is None:
    return new
  kept = graph.add("Mul", [update, hidden], f"{at}/kept")
  return graph.add("Add", [new, kept], f"{at}/state")
