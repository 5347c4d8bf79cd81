"""Any images in, normalised vectors out; boxes of a frame; two images of one person or not."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import magnifier_jax
from magnifier_jax.evaluation.thresholds import ThresholdError
from magnifier_jax.retrieval.embedded import EmbeddedImages
from magnifier_jax.retrieval.embedder import Embedder, ImageError
from magnifier_jax.retrieval.network import NetworkError, open_network
from tests.retrieval.fake_network import THRESHOLDS, FakeNetwork, pictures


def expected(images: np.ndarray) -> np.ndarray:
  """The whole embeddings of pictures, branch by branch as the network's order has them."""
  branches = FakeNetwork().embed_batch(images)
  whole = np.concatenate([branches["global"], branches["fusion"]], axis=1)
  return whole / np.linalg.norm(whole, axis=1, keepdims=True)


def write_pictures(folder: Path, count: int, seed: int = 0) -> list[Path]:
  """Writes pictures as PNG files."""
  files = [folder / f"{i:04}.png" for i in range(count)]
  for file, pixels in zip(files, pictures(count, seed)):
    Image.fromarray(pixels).save(file)
  return files


@pytest.mark.parametrize("count", [1, 2, 9, 20, 40, 64, 65, 200])
def test_any_number_is_embedded_in_at_most_three_sizes(count: int):
  network = FakeNetwork()
  images = pictures(count)
  embedded = Embedder(network).embed(iter(images))
  np.testing.assert_allclose(embedded.whole, expected(images), atol=1e-6)
  assert embedded.whole.dtype == np.float32
  assert embedded.position.tolist() == list(range(count))
  assert set(network.batch_sizes) <= {1, 8, 64}
  assert sum(network.batch_sizes) < count + 64
  assert sum(network.batch_sizes) < 2 * count + 8


def test_branches_are_normalised_one_by_one():
  images = pictures(5)
  embedded = Embedder(FakeNetwork()).embed(images)
  branches = FakeNetwork().embed_batch(images)
  assert list(embedded.branches) == ["global", "fusion"]
  for name, vectors in embedded.branches.items():
    lengths = np.linalg.norm(branches[name], axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, branches[name] / lengths, atol=1e-6)


def test_one_image_needs_no_list(tmp_path: Path):
  [file] = write_pictures(tmp_path, 1)
  embedder = Embedder(FakeNetwork())
  for image in (str(file), file, Image.open(file), pictures(1)[0]):
    np.testing.assert_allclose(embedder.embed(image).whole, expected(pictures(1)), atol=1e-6)


def test_failures_are_listed_and_rows_know_their_images(tmp_path: Path):
  files = write_pictures(tmp_path, 4)
  files[1].write_bytes(b"")
  white = np.full((16, 8, 3), 255, np.uint8)  # of which the network makes NaN
  gray = np.full((16, 8, 3), 128, np.uint8)  # of which it makes zeros
  images = [*files, white, tmp_path / "none.jpg", gray]
  embedded = Embedder(FakeNetwork(), batch_size=2).embed(images)
  assert embedded.position.tolist() == [0, 2, 3]
  assert [Path(path).name for path in embedded.path] == ["0000.png", "0002.png", "0003.png"]
  assert sorted(embedded.failed) == sorted(
    [
      (str(files[1]), "the file is empty"),
      ("image 4", "the network gives NaN, infinity or zeros alone"),
      ("image 6", "the network gives NaN, infinity or zeros alone"),
      (str(tmp_path / "none.jpg"), "cannot be read: No such file or directory"),
    ]
  )
  np.testing.assert_allclose(embedded.whole, expected(pictures(4)[[0, 2, 3]]), atol=1e-6)
  assert (len(embedded), embedded.num_given) == (3, 7)


@pytest.mark.parametrize("images", [[], ["nowhere.png"]])
def test_nothing_embedded_is_an_empty_matrix(images: list[str]):
  embedded = Embedder(FakeNetwork()).embed(images)
  assert embedded.whole.shape == (0, 27)
  assert len(embedded.failed) == len(images)
  assert embedded.branches["fusion"].shape == (0, 3)


def test_memory_does_not_grow_with_the_number_of_images():
  image = pictures(1)[0]

  def peak(count: int) -> int:
    tracemalloc.start()
    stream = Embedder(FakeNetwork(), batch_size=8).stream(image.copy() for _ in range(count))
    assert sum(len(part) for part in stream) == count
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak

  peak(100)
  assert peak(3000) < peak(300) + 100_000  # the images alone are 1 MB more


def test_boxes_are_cut_from_their_frame():
  frame = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
  boxes = np.array([[10, 5, 30.4, 44.6], [-7, -3, 20, 30], [70, 50, 99, 99]])
  crops = [frame[5:45, 10:30], frame[0:30, 0:20], frame[50:60, 70:80]]
  embedder = Embedder(FakeNetwork())
  embedded = embedder.embed_boxes(frame, boxes)
  np.testing.assert_array_equal(embedded.whole, embedder.embed(crops).whole)
  as_opencv_has_it = embedder.embed_boxes(frame[..., ::-1], boxes, color="bgr")
  np.testing.assert_array_equal(as_opencv_has_it.whole, embedded.whole)
  assert not np.allclose(embedder.embed_boxes(frame[..., ::-1], boxes).whole, embedded.whole)


def test_boxes_without_a_pixel_fail_and_the_others_keep_their_numbers():
  frame = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
  empty = [[20, 20, 20, 40], [30, 30, 20, 40], [90, 0, 99, 9], [np.nan, 0, 9, 9]]
  boxes = np.array([empty[0], [0, 0, 9, 9], *empty[1:], [5, 5, 20, 20]])
  embedded = Embedder(FakeNetwork()).embed_boxes(frame, boxes)
  assert embedded.position.tolist() == [1, 5]
  assert [failure.input for failure in embedded.failed] == ["box 0", "box 2", "box 3", "box 4"]
  assert embedded.failed[2].reason == "no pixel of it is in the frame: [90.0, 0.0, 99.0, 9.0]"
  assert len(Embedder(FakeNetwork()).embed_boxes(frame, [])) == 0


@pytest.mark.parametrize(
  ("frame", "boxes", "color", "message"),
  [
    (np.zeros((4, 4, 3)), [], "rgb", r"frame: \[H, W, 3\] uint8 is wanted, got float64"),
    (np.zeros((4, 4), np.uint8), [], "rgb", "uint8 of shape"),
    (np.zeros((4, 4, 4), np.uint8), [], "rgb", r"uint8 of shape \(4, 4, 4\)"),
    ("frame.jpg", [], "rgb", "got str"),
    (np.zeros((4, 4, 3), np.uint8), [1, 2, 3, 4], "rgb", r"boxes_xyxy: \[N, 4\] is wanted"),
    (np.zeros((4, 4, 3), np.uint8), [], "BGR", "color: 'rgb' or 'bgr'"),
  ],
)
def test_frames_and_boxes_of_another_kind_are_refused(frame, boxes, color, message):
  with pytest.raises(ImageError, match=message):
    Embedder(FakeNetwork()).embed_boxes(frame, boxes, color)


def test_the_same_person_is_below_the_threshold():
  one, other = pictures(2)
  almost = np.clip(one.astype(int) + 3, 0, 255).astype(np.uint8)
  embedder = Embedder(FakeNetwork())
  verdict = embedder.same_person(one, almost)
  assert verdict
  assert verdict.same
  a, b = expected(np.stack([one, almost]))
  assert verdict.distance == pytest.approx(((a - b) ** 2).sum(), rel=1e-4)
  assert (verdict.threshold, verdict.true_accept_rate) == (0.05, 0.6)
  assert verdict.calibrated_on == THRESHOLDS["calibrated_on"]
  first, second = (embedder.embed(image).branches for image in (one, almost))
  assert verdict.branch_distances == pytest.approx(
    {name: ((first[name] - second[name]) ** 2).sum() for name in first}, rel=1e-4
  )
  assert not embedder.same_person(one, other)
  assert embedder.same_person(one, almost, far=1e-2).threshold == 0.5


@pytest.mark.parametrize(
  ("thresholds", "message"),
  [
    (None, "a fake: it has no thresholds, since this checkpoint was not evaluated; run .*evaluate"),
    (THRESHOLDS | {"flip": True}, r"mirrored ones added; .*flip=False"),
    (THRESHOLDS | {"whole": 3}, r"far=0\.001: .* there are none"),
  ],
)
def test_no_verdict_without_a_threshold_that_fits(thresholds, message: str):
  with pytest.raises(ThresholdError, match=message):
    Embedder(FakeNetwork(thresholds)).same_person(*pictures(2))


def test_no_verdict_on_a_rate_or_an_image_that_is_not_there():
  embedder = Embedder(FakeNetwork())
  with pytest.raises(ThresholdError, match=r"far=0\.5: .* there are 0\.01, 0\.001"):
    embedder.same_person(*pictures(2), far=0.5)
  with pytest.raises(ImageError, match=r"^nowhere\.png: cannot be read"):
    embedder.same_person("nowhere.png", pictures(1)[0])


def test_importing_the_package_brings_neither_jax_nor_tensorflow(repository: Path):
  program = (
    "import sys, magnifier_jax, json; dir(magnifier_jax)\n"
    "heavy = {'jax', 'tensorflow', 'numpy', 'PIL', 'pyarrow'} & set(sys.modules)\n"
    "load, gallery = magnifier_jax.load, magnifier_jax.Gallery\n"
    "print(json.dumps([sorted(heavy), load.__module__, gallery.__module__,\n"
    "  'tensorflow' in sys.modules]))"
  )
  done = subprocess.run(
    [sys.executable, "-c", program], cwd=repository, check=True, capture_output=True, text=True
  )
  heavy, load, gallery, tensorflow = json.loads(done.stdout)
  assert (heavy, tensorflow) == ([], False)
  assert load == "magnifier_jax.retrieval.embedder"
  assert gallery == "magnifier_jax.retrieval.gallery"
  with pytest.raises(AttributeError, match="has no attribute 'lode'"):
    _ = magnifier_jax.lode


def test_a_network_that_is_not_there_is_one_line(tmp_path: Path):
  with pytest.raises(NetworkError, match="no such workdir"):
    magnifier_jax.load(tmp_path / "none")
  (tmp_path / "manifest.json").write_text("{}")
  with pytest.raises(NetworkError, match="a gallery, not a network"):
    magnifier_jax.load(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "model.stablehlo", ""])
def test_exported_networks_are_opened_as_such(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
  """With a stand-in for the module that opens them."""
  (tmp_path / (name or "model.onnx")).write_bytes(b"")
  asked = []
  stand_in = type(sys)("magnifier_jax.export.opened")
  stand_in.open_exported = lambda path: asked.append(path) or FakeNetwork()
  monkeypatch.setitem(sys.modules, "magnifier_jax.export", type(sys)("magnifier_jax.export"))
  monkeypatch.setitem(sys.modules, "magnifier_jax.export.opened", stand_in)
  assert isinstance(open_network(tmp_path / name), FakeNetwork)
  assert asked == [tmp_path / name]
  assert isinstance(magnifier_jax.load(tmp_path / name).embed(pictures(2)), EmbeddedImages)


def test_an_exported_network_says_in_a_line_what_it_is():
  network = FakeNetwork(thresholds=None)
  network.description = {"name": "cuhk03", "step": 7, "config": {}}
  with pytest.raises(ThresholdError, match=r"^cuhk03, step 7, exported: it has no thresholds"):
    Embedder(network).same_person(*pictures(2))
