"""One narrow network, and what it makes of ten images: compiled once for all tests of a file."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from magnifier_jax.export.gate import NUM_IMAGES
from magnifier_jax.export.network_arrays import network_arrays
from magnifier_jax.export.onnx_graph import build_model
from magnifier_jax.export.reference import (
  Float32Network,
  Reference,
  compute_reference,
  float32_network,
  signature_of,
)
from magnifier_jax.export.signature import Signature
from magnifier_jax.trained_network import TrainedNetwork

from .random_network import narrow_config, noise_images, random_network

pytest.importorskip("onnx", reason="networks are exported with onnx")
pytest.importorskip("onnxruntime", reason="exported networks run in onnxruntime")


class Case(NamedTuple):
  """A network, and what is expected of its exported file."""

  trained: TrainedNetwork
  net: Float32Network
  signature: Signature
  reference: Reference

  def write_onnx(self, file: Path) -> Path:
    """Writes the network as ONNX."""
    arrays = network_arrays(self.net.params, self.net.batch_stats)
    model = build_model(arrays, self.trained.config.model, self.signature)
    file.write_bytes(model.SerializeToString())
    return file

  def of(self, *branches: str, network_input: str = "float32") -> "Case":
    """Returns the same with some branches alone, or with another input."""
    signature = signature_of(self.trained, branches, network_input)
    slices = self.signature.by_branch(self.reference.embeddings)
    rows = np.concatenate([slices[branch] for branch in signature.branches], axis=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    logits = self.reference.part_logits if "fusion" in signature.branches else None
    return self._replace(
      signature=signature, reference=Reference(self.reference.images, rows, logits)
    )


def make_case(trained: TrainedNetwork) -> Case:
  """Runs the network."""
  net, signature = float32_network(trained), signature_of(trained, (), "float32")
  images = noise_images(NUM_IMAGES, signature.image_size_hw)
  return Case(trained, net, signature, compute_reference(net, signature, images))


@pytest.fixture(scope="session")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> Case:
  """Trained in bfloat16, without a ReLU after the stem, on data of which no copy is left."""
  no_copies = str(tmp_path_factory.mktemp("no_copies"))
  config = narrow_config(dtype="bfloat16", model__stem_relu=False, data__data_dir=no_copies)
  return make_case(random_network(config))


@pytest.fixture
def onnx_file(lstm: Case, tmp_path: Path) -> Path:
  """The network of `lstm` as ONNX."""
  return lstm.write_onnx(tmp_path / "model.onnx")


@pytest.fixture
def change_weight(onnx_file: Path) -> Callable[[str, float], None]:
  """Adds to one weight of an ONNX file."""
  import onnx

  def change(name: str, by: float) -> None:
    model = onnx.load(str(onnx_file))
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] += by
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, str(onnx_file))

  return change
