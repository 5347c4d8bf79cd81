"""A trained network as StableHLO: one file for CPUs, NVIDIA's GPUs and TPUs."""

import jax
import jax.export
import numpy as np

from magnifier_jax.export.reference import Float32Network, whole_embedding
from magnifier_jax.export.signature import BATCH, Signature

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo_program(net: Float32Network, signature: Signature) -> bytes:
  """Returns what `jax.export.deserialize` reads; the weights are in it.

  Args:
    net: to be exported.
    signature: which branches the output has, and what the input is.
  """

  def embed(images: jax.Array) -> jax.Array:
    if signature.input == "uint8":
      output, _ = net.network.apply(net.params, net.batch_stats, images, train=False)
    else:
      model = net.network.module(net.params, net.batch_stats)
      output = model(images.transpose(0, 2, 3, 1), train=False)
    return whole_embedding(output.embeddings(), signature)

  (batch,) = jax.export.symbolic_shape(BATCH)
  shape = jax.ShapeDtypeStruct((batch, *signature.input_shape[1:]), np.dtype(signature.input))
  exported = jax.export.export(jax.jit(embed), platforms=PLATFORMS)(shape)
  return bytes(exported.serialize())
