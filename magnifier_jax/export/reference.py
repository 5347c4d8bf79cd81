"""What this package's own network makes of images: the measure of what was exported."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.evaluation.embedding import BRANCHES
from magnifier_jax.export.packages import ExportError
from magnifier_jax.export.signature import Signature
from magnifier_jax.models.network import Network, create_network
from magnifier_jax.models.parts import resize_nearest
from magnifier_jax.train_state import Tree
from magnifier_jax.trained_network import TrainedNetwork


class Float32Network(NamedTuple):
  """A network whose arithmetic is float32, whatever it was trained in.

  Attributes:
    network: its structure.
    params: on the host, float32.
    batch_stats: likewise.
  """

  network: Network
  params: Tree
  batch_stats: Tree


class Reference(NamedTuple):
  """What is expected of an exported network.

  Attributes:
    images: [N, H, W, 3] uint8.
    embeddings: [N, D] float32, the wanted branches side by side, L2-normalised as a whole.
    part_logits: [N, h, w, S] float32 on the grid of stage 3; None where no branch asks for parts.
  """

  images: np.ndarray
  embeddings: np.ndarray
  part_logits: np.ndarray | None


def float32_network(trained: TrainedNetwork) -> Float32Network:
  """Returns a trained network for arithmetic in float32."""
  config = dataclasses.replace(trained.config, dtype="float32")
  network, _ = create_network(config, trained.record.num_people)
  trees = jax.device_get((trained.params, trained.batch_stats))
  return Float32Network(network, *jax.tree.map(np.float32, trees))


def branch_widths(trained: TrainedNetwork) -> dict[str, int]:
  """Returns {branch: its width} of the branches that a network has, in their order."""
  modules = {branch: trained.params.get(f"{branch}_branch") for branch in BRANCHES}
  return {
    branch: module["bnneck"]["scale"].shape[0]
    for branch, module in modules.items()
    if module is not None
  }


def signature_of(
  trained: TrainedNetwork, branches: tuple[str, ...], network_input: str
) -> Signature:
  """Returns the signature of an exported network.

  Args:
    trained: to be exported.
    branches: to be exported; () is all that it has. The order is the network's.
    network_input: 'float32' or 'uint8'.

  Raises:
    ExportError: when the network has no such branch.
  """
  data = trained.config.data
  widths = branch_widths(trained)
  unknown = [branch for branch in branches if branch not in widths]
  if unknown:
    raise ExportError(
      f"--branches: the network has no branch {unknown[0]!r}; it has {', '.join(widths)}"
    )
  kept = {branch: width for branch, width in widths.items() if branch in (branches or widths)}
  return Signature(data.image_size_hw, data.pixel_mean, data.pixel_std, network_input, kept)


def whole_embedding(embeddings: dict[str, jax.Array], signature: Signature) -> jax.Array:
  """Returns the wanted branches side by side, divided by their length together; [B, D]."""
  whole = jnp.concatenate([embeddings[name] for name in signature.branches], axis=1)
  length = jnp.linalg.norm(whole, axis=1, keepdims=True)
  return whole / jnp.maximum(length, np.finfo(np.float32).tiny)


def compute_reference(net: Float32Network, signature: Signature, images: np.ndarray) -> Reference:
  """Runs the network on images [N, H, W, 3] uint8, on a CPU, all of them at once."""
  cpu = jax.devices("cpu")[0]
  grid_hw = [size // 16 for size in signature.image_size_hw]
  options = mesh_lib.compiler_options(mesh_lib.data_mesh([cpu]), net.network.dtype, train=False)

  def run(params: Tree, batch_stats: Tree, images: jax.Array) -> tuple:
    output, _ = net.network.apply(params, batch_stats, images, train=False)
    logits = output.segmentation_logits if "fusion" in signature.branches else None
    if logits is not None:
      logits = resize_nearest(logits, *grid_hw)
    return whole_embedding(output.embeddings(), signature), logits

  arguments = jax.device_put((net.params, net.batch_stats, images), cpu)
  embeddings, logits = jax.device_get(jax.jit(run, compiler_options=options)(*arguments))
  return Reference(images, embeddings, logits)
