"""The recurrent layer over the parts in ONNX, step by step.

ONNX has an LSTM and a GRU. They order the gates otherwise, take a state of a size that has to be
computed from the batch's, and not every runtime has both; eight steps of products are the same
everywhere.
"""

import numpy as np

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.export.network_arrays import NetworkArrays
from magnifier_jax.export.onnx_builder import OnnxBuilder


def last_hidden_state(graph: OnnxBuilder, sequence: str, layer: NetworkArrays, cell: str) -> str:
  """Adds an LSTM or a GRU that starts from zeros.

  Args:
    graph: to add to.
    sequence: [B, S, C].
    layer: its kernels and biases, gates in PyTorch's order.
    cell: 'lstm' or 'gru'.

  Returns:
    The name of the state after the last part, [B, D].
  """
  name = layer.name
  kernel_input = graph.constant(f"{name}/kernel_input", layer.array("kernel_input"))
  bias_input = graph.constant(f"{name}/bias_input", layer.array("bias_input"))
  projected = graph.add("MatMul", [sequence, kernel_input], f"{name}/product")
  projected = graph.add("Add", [projected, bias_input], f"{name}/projected")
  steps = graph.add("Split", [projected], f"{name}/steps", outputs=NUM_PARTS, axis=1)
  kernel_hidden = graph.constant(f"{name}/kernel_hidden", layer.array("kernel_hidden"))
  # Its axis in front lets it stand for the product at the first step, where the state is zero.
  from_hidden = bias = graph.constant(f"{name}/bias_hidden", layer.array("bias_hidden")[None])
  hidden = memory = None
  for number, step in enumerate(steps):
    at = f"{name}/step{number}"
    from_input = graph.add("Flatten", [step], f"{at}/from_input")  # [B, 1, G] → [B, G]
    if hidden is not None:
      product = graph.add("MatMul", [hidden, kernel_hidden], f"{at}/product")
      from_hidden = graph.add("Add", [product, bias], f"{at}/from_hidden")
    if cell == "lstm":
      hidden, memory = _lstm_step(graph, from_input, from_hidden, memory, at)
    else:
      hidden = _gru_step(graph, from_input, from_hidden, hidden, at)
  return hidden


def _lstm_step(
  graph: OnnxBuilder, from_input: str, from_hidden: str, memory: str | None, at: str
) -> tuple[str, str]:
  """Adds a step; returns the hidden state and the memory. At the first there is no memory."""
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
  graph: OnnxBuilder, from_input: str, from_hidden: str, hidden: str | None, at: str
) -> str:
  """Adds a step; returns the hidden state. At the first there is none before."""
  input_r, input_z, input_n = graph.add("Split", [from_input], f"{at}/input", outputs=3, axis=1)
  hidden_r, hidden_z, hidden_n = graph.add(
    "Split", [from_hidden], f"{at}/hidden", outputs=3, axis=1
  )
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
