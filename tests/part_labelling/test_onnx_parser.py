"""Part labels from networks in ONNX that are built here: a class is a primary colour."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from magnifier_jax.part_labelling.class_maps import ClassMap, find_class_map
from magnifier_jax.part_labelling.labeller import LabellingError, PersonImage
from magnifier_jax.part_labelling.onnx_parser import OnnxLabeller, OnnxOptions
from magnifier_jax.tools import label_parts
from tests.data.noise_tree import write_tree

onnx = pytest.importorskip("onnx", reason="networks are built with onnx")
pytest.importorskip("onnxruntime", reason="the parser needs onnxruntime")

_MAP = ClassMap("colours", ("background", "head", "torso", "foot"))  # black, red, green, blue
_RAW = {"pixel_mean": (0.0, 0.0, 0.0), "pixel_std": (255.0, 255.0, 255.0)}
_COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
_PARTS = np.array([0, 1, 2, 7], np.uint8)


def _write_network(
  file: Path,
  input_shape: tuple = (1, 3, 32, 32),
  *,
  channels_last: bool = False,
  stride: int = 1,
  classes: bool = False,
  edges_first: bool = False,
) -> Path:
  """Writes a network whose score of a class is how far a pixel has its colour."""
  helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
  weights = np.array([[-1, -1, -1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)[:, :, None, None]
  bias = np.array([0.5, 0, 0, 0], np.float32)
  nodes, image, scores = [], "image", "scores"
  if channels_last:
    nodes.append(helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2]))
    image, scores = "nchw", "nchw_scores"
  nodes.append(
    helper.make_node("Conv", [image, "weights", "bias"], [scores], strides=[stride, stride])
  )
  if channels_last:
    nodes.append(helper.make_node("Transpose", [scores], ["scores"], perm=[0, 2, 3, 1]))
  outputs = [helper.make_tensor_value_info("scores", FLOAT, list("nabc"))]
  if classes:
    nodes.append(helper.make_node("ArgMax", ["scores"], ["classes"], axis=1, keepdims=0))
    outputs = [helper.make_tensor_value_info("classes", onnx.TensorProto.INT64, list("nhw"))]
  if edges_first:
    nodes.append(
      helper.make_node("ReduceMax", ["scores"], ["edges"], axes=[0, 1, 2, 3], keepdims=1)
    )
    outputs.insert(0, helper.make_tensor_value_info("edges", FLOAT, [1, 1, 1, 1]))
  graph = helper.make_graph(
    nodes,
    "colours",
    [helper.make_tensor_value_info("image", FLOAT, input_shape)],
    outputs,
    [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(bias, "bias")],
  )
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
  file.write_bytes(model.SerializeToString())
  return file


def _picture(height: int = 64, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
  """Returns an image of four bands, and its parts."""
  band = np.arange(height) * 4 // height
  return (
    np.repeat(_COLOURS[band][:, None], width, axis=1),
    np.repeat(_PARTS[band][:, None], width, axis=1),
  )


def _label(labeller: OnnxLabeller, pixels: np.ndarray) -> np.ndarray | None:
  (parts,) = labeller.label([PersonImage("x.png", pixels)])
  return parts


@pytest.mark.parametrize(
  ("network", "options"),
  [
    pytest.param({}, {}, id="padded"),
    pytest.param({}, {"fit": "stretch"}, id="stretched"),
    pytest.param({}, {"resize": "nearest"}, id="nearest"),
    pytest.param({"input_shape": (1, 32, 32, 3), "channels_last": True}, {}, id="channels last"),
    pytest.param({"input_shape": ("n", 3, "h", "w")}, {"input_size_hw": (64, 48)}, id="any size"),
    pytest.param({"classes": True}, {}, id="classes"),
    pytest.param({"edges_first": True}, {}, id="other output first"),
    pytest.param({"edges_first": True}, {"output": "scores"}, id="named output"),
    pytest.param({"input_shape": (1, 3, 128, 128), "stride": 4}, {}, id="coarse scores"),
  ],
)
def test_parts_lie_where_their_colours_are(tmp_path, network: dict, options: dict):
  model = _write_network(tmp_path / "parser.onnx", **network)
  labeller = OnnxLabeller(model, _MAP, OnnxOptions(**_RAW, **options))
  pixels, expected = _picture()
  parts = _label(labeller, pixels)
  assert parts.dtype == np.uint8
  assert parts.shape == expected.shape
  wrong_rows = np.flatnonzero((parts != expected).any(axis=1))
  # Where two bands meet, the network sees a mixture of their colours.
  assert all(min(abs(row + 0.5 - border) for border in (16, 32, 48)) < 3 for row in wrong_rows)


def test_scores_are_interpolated_but_classes_are_not(tmp_path):
  model = _write_network(tmp_path / "parser.onnx", (1, 3, 32, 32), stride=8)
  bilinear, nearest = (
    _label(OnnxLabeller(model, _MAP, OnnxOptions(**_RAW, resize=resize)), _picture(64, 64)[0])
    for resize in ("bilinear", "nearest")
  )
  assert (bilinear != nearest).any()
  np.testing.assert_array_equal(nearest, _picture(64, 64)[1])


def test_channels_may_be_in_the_other_order(tmp_path):
  model = _write_network(tmp_path / "parser.onnx")
  options = OnnxOptions(**_RAW, channel_order="bgr")
  red = np.zeros((32, 32, 3), np.uint8)
  red[..., 0] = 255
  assert np.unique(_label(OnnxLabeller(model, _MAP, options), red)).tolist() == [7]


def test_mean_and_deviation_are_those_of_the_colour(tmp_path):
  model = _write_network(tmp_path / "parser.onnx")
  # Gray is far above the mean of green, and at the mean of the others.
  options = OnnxOptions(pixel_mean=(100.0, 0.0, 100.0), pixel_std=(50.0, 50.0, 50.0))
  gray = np.full((32, 32, 3), 100, np.uint8)
  assert np.unique(_label(OnnxLabeller(model, _MAP, options), gray)).tolist() == [2]


def test_an_image_of_background_has_no_parts(tmp_path):
  model = _write_network(tmp_path / "parser.onnx")
  labeller = OnnxLabeller(model, _MAP, OnnxOptions(**_RAW))
  assert _label(labeller, np.zeros((20, 10, 3), np.uint8)) is None


def test_the_method_says_which_file_and_how(tmp_path):
  model = _write_network(tmp_path / "parser.onnx")
  method, same, other = (
    OnnxLabeller(model, _MAP, OnnxOptions(**_RAW, fit=fit)).method
    for fit in ("pad", "pad", "stretch")
  )
  assert method.sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
  assert method.digest == same.digest != other.digest


def test_options_of_the_command_line_reach_the_network(tmp_path, repository):
  write_tree(tmp_path, train_images=(2,))
  shutil.rmtree(tmp_path / "cuhk03-np_ps_label")
  model = _write_network(tmp_path / "parser.onnx", ("n", 3, "h", "w"), edges_first=True)
  classes = tmp_path / "classes.yaml"
  classes.write_text("0: torso\n1: head\n2: torso\n3: foot\n")
  options = OnnxOptions(
    input_size_hw=(64, 48),
    pixel_mean=(1.0, 2.0, 3.0),
    pixel_std=(4.0, 5.0, 6.5),
    channel_order="bgr",
    fit="stretch",
    resize="nearest",
    output="scores",
  )
  arguments = [f"--config={repository / 'configs' / 'cuhk03.py'}"]
  arguments += [f"--config.data.manual_dir={tmp_path}", f"--model={model}", f"--classes={classes}"]
  arguments += ["--input_size=64x48", "--mean=1,2,3", "--std=4,5,6.5", "--channel_order=bgr"]
  arguments += ["--fit=stretch", "--resize=nearest", "--output=scores"]
  assert label_parts.main(["onnx", *arguments]) == 0
  folder = tmp_path / "cuhk03-np_ps_label"
  assert len(list(folder.rglob("*.png"))) == 2
  line = json.loads((folder / "label_parts.jsonl").read_text().splitlines()[0])
  expected = OnnxLabeller(model, find_class_map(str(classes)), options).method
  assert line["options"] == json.loads(json.dumps(expected.options))
  assert line["method"] == expected.digest


@pytest.mark.parametrize(
  ("network", "options", "message"),
  [
    ({"input_shape": (1, 4, 32, 32)}, {}, "--model: .*must be float of shape"),
    ({"input_shape": (2, 3, 32, 32)}, {}, "takes batches of 2 images; export it for 1"),
    ({}, {"output": "parts"}, "--output: .* has no output 'parts', but scores"),
    ({}, {"input_size_hw": (64, 64)}, "--input_size: .* takes 32x32 pixels only"),
  ],
)
def test_networks_that_do_not_fit_are_named(tmp_path, network: dict, options: dict, message: str):
  model = _write_network(tmp_path / "parser.onnx", **network)
  with pytest.raises(LabellingError, match=message):
    OnnxLabeller(model, _MAP, OnnxOptions(**_RAW, **options))


def test_another_number_of_classes_is_named(tmp_path):
  model = _write_network(tmp_path / "parser.onnx")
  with pytest.raises(LabellingError, match=r"five has 5 classes, but .* scores \(1, 4, 32, 32\)"):
    OnnxLabeller(model, ClassMap("five", ("background", "head", "torso", "foot", "foot")))


def test_a_class_beyond_the_map_is_named(tmp_path):
  model = _write_network(tmp_path / "parser.onnx", classes=True)
  labeller = OnnxLabeller(model, ClassMap("two", ("background", "head")), OnnxOptions(**_RAW))
  with pytest.raises(LabellingError, match="two has 2 classes, but the network found class 3"):
    _label(labeller, _picture()[0])


@pytest.mark.parametrize(
  ("content", "message"), [(None, "cannot be read"), (b"no network", "is not an ONNX file")]
)
def test_files_that_are_no_network_are_named(tmp_path, content: bytes | None, message: str):
  file = tmp_path / "parser.onnx"
  if content:
    file.write_bytes(content)
  with pytest.raises(LabellingError, match=f"--model: .*parser.onnx {message}"):
    OnnxLabeller(file, _MAP)
