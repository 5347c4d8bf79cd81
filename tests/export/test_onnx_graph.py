"""The graph gives what the network gives, whatever the network, the batch and the input."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from magnifier_jax.export.gate import BATCHES, relative_norms
from magnifier_jax.export.packages import ExportError
from magnifier_jax.export.programs import open_program
from magnifier_jax.export.reference import signature_of
from magnifier_jax.models import resnet

from .conftest import Case, make_case
from .random_network import narrow_config, random_network

ROUNDING = 2e-6  # relative norm of an image's difference; both sides are 1e-6 from float64


def largest_differences(case: Case, file: Path) -> dict[str, float]:
  """Returns {branch: largest relative norm} over batches of 1, 2 and 7."""
  program = open_program(case.write_onnx(file), on_cpu=True)
  batches = np.split(case.reference.images, np.cumsum(BATCHES)[:-1])
  found = np.concatenate([program(case.signature.to_input(batch)) for batch in batches])
  ours, expected = (case.signature.by_branch(rows) for rows in (found, case.reference.embeddings))
  return {branch: relative_norms(ours[branch], expected[branch]).max() for branch in ours}


def assert_equal(case: Case, file: Path) -> None:
  differences = largest_differences(case, file)
  assert differences.keys() == case.signature.branches.keys()
  assert max(differences.values()) < ROUNDING, differences


def test_lstm_of_a_network_that_was_trained_in_bfloat16(lstm: Case, tmp_path: Path):
  assert list(lstm.signature.branches.items()) == [
    ("global", 64),
    ("adversarial", 16),
    ("fusion", 24),
  ]
  # Otherwise pooling by parts would not be tested.
  assert len(np.unique(lstm.reference.part_logits.argmax(-1))) >= 4
  assert_equal(lstm, tmp_path / "model.onnx")


def test_gru_bottlenecks_stem_relu_last_stride_2_and_generalised_mean(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  narrow = resnet.Architecture(resnet.Bottleneck, (2, 1, 1, 2), width=4)
  monkeypatch.setitem(resnet.ARCHITECTURES, "resnet50", narrow)
  config = narrow_config(
    "small,paper",
    model__backbone="resnet50",
    model__last_stride=2,
    model__adversarial_dim=8,
    model__global_pooling="gem",
  )
  assert (config.model.fusion_cell, config.model.stem_relu) == ("gru", True)
  case = make_case(random_network(config))
  assert len(np.unique(case.reference.part_logits.argmax(-1))) >= 4
  assert_equal(case, tmp_path / "model.onnx")


@pytest.mark.parametrize("branches", [("global",), ("fusion", "global"), ("adversarial",)])
def test_some_branches_alone(lstm: Case, tmp_path: Path, branches: tuple[str, ...]):
  case = lstm.of(*branches)
  assert_equal(case, tmp_path / "model.onnx")
  # In the network's order, and with nothing in it that they do not need.
  assert list(case.signature.branches) == [b for b in lstm.signature.branches if b in branches]
  weights = onnx.load(str(tmp_path / "model.onnx")).graph.initializer
  assert any("part" in weight.name for weight in weights) == ("fusion" in branches)


def test_pixels_are_normalised_inside(lstm: Case, tmp_path: Path):
  case = lstm.of(network_input="uint8")
  assert case.signature.to_input(lstm.reference.images).dtype == np.uint8
  assert_equal(case, tmp_path / "model.onnx")


def test_trackers_find_what_they_expect(onnx_file: Path):
  model = onnx.load(str(onnx_file))
  assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
  assert model.ir_version == 8
  [images], [embedding] = model.graph.input, model.graph.output
  shapes = [
    [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
    for value in (images, embedding)
  ]
  assert shapes == [["batch", 3, 64, 32], ["batch", 64 + 16 + 24]]
  assert images.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
  # Folded away, and no loop or recurrent operation that a runtime may not have.
  operations = {node.op_type for node in model.graph.node}
  assert not operations & {"BatchNormalization", "LSTM", "GRU", "Scan", "Loop", "If"}


def test_vectors_have_length_1_and_zeros_stay(lstm: Case, onnx_file: Path):
  program = open_program(onnx_file, on_cpu=True)
  rows = program(lstm.signature.to_input(lstm.reference.images))
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
  model = onnx.load(str(onnx_file))
  for tensor in model.graph.initializer:
    if "bnneck" in tensor.name or tensor.name.startswith("adversarial_branch/reduce"):
      zeros = np.zeros_like(onnx.numpy_helper.to_array(tensor))
      tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))
  onnx.save(model, str(onnx_file))
  rows = open_program(onnx_file, on_cpu=True)(lstm.signature.to_input(lstm.reference.images))
  np.testing.assert_array_equal(rows, 0)


def test_a_branch_that_is_not_there_is_named(lstm: Case):
  with pytest.raises(ExportError, match="no branch 'parts'; it has global, adversarial, fusion"):
    signature_of(lstm.trained, ("global", "parts"), "float32")
