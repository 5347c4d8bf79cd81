"""What a fresh run starts from."""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from magnifier_jax.interop import torchvision_weights
from magnifier_jax.interop.state_dict import StateDictError, is_classifier, to_state_dict
from magnifier_jax.interop.torchvision_weights import (
  BackboneError,
  check_architecture,
  imagenet_weights,
)
from magnifier_jax.interop.weights_file import sha256, write_weights
from magnifier_jax.models.resnet import ARCHITECTURES, Bottleneck
from magnifier_jax.train_state import TrainState, Weights
from magnifier_jax.weights.initialization import InitializationError, initialize
from tests.interop.small_network import SmallNetwork, small_config, small_network


@pytest.fixture(scope="module")
def drawn() -> SmallNetwork:
  return small_network(num_people=3, seed=0)


@pytest.fixture(scope="module")
def trained() -> SmallNetwork:
  return small_network(num_people=5, seed=1)


def torchvision_names(network: SmallNetwork) -> dict[str, np.ndarray]:
  """The backbone as torchvision's files have it, with its own classifier."""
  prefix = "base.model."
  backbone = {
    name.removeprefix(prefix): array
    for name, array in network.state_dict.items()
    if name.startswith(prefix)
  }
  counter = {"bn1.num_batches_tracked": np.array(7)}
  return backbone | counter | {"fc.weight": np.ones((10, 512)), "fc.bias": np.ones(10)}


def names_of(architecture: str) -> list[str]:
  """One convolution of each block."""
  known = ARCHITECTURES[architecture]
  last = 3 if known.block is Bottleneck else 2
  return [
    f"layer{stage}.{i}.conv{last}.weight"
    for stage, size in enumerate(known.stage_sizes, start=1)
    for i in range(size)
  ]


def assert_same(state: TrainState, expected: dict[str, np.ndarray]) -> None:
  """Compares with PyTorch's names, bit for bit."""
  ours = to_state_dict(state.params, state.batch_stats)
  assert ours.keys() == expected.keys()
  for name, array in ours.items():
    assert array.tobytes() == expected[name].tobytes(), name


def test_none_leaves_everything(tmp_path: Path, drawn: SmallNetwork):
  state = drawn.state()
  assert initialize(state, small_config(), tmp_path, print) is state
  assert list(tmp_path.iterdir()) == []


def test_backbone_from_a_file(tmp_path: Path, drawn: SmallNetwork, trained: SmallNetwork):
  path, said = tmp_path / "resnet.pth", []
  write_weights(path, torchvision_names(trained))
  state = initialize(drawn.state(), small_config(str(path)), tmp_path, said.append)
  from_file = {
    name: array for name, array in trained.state_dict.items() if name.startswith("base.model.")
  }
  assert_same(state, drawn.state_dict | from_file)
  assert said == [f"backbone: resnet18 from {path} (SHA-256 {sha256(path)[:8]}…)"]
  origin = json.loads((tmp_path / "initial_weights.json").read_text())
  assert origin == {"path": str(path), "sha256": sha256(path)}


def test_state_stays_where_it_is(tmp_path: Path, drawn: SmallNetwork, trained: SmallNetwork):
  write_weights(tmp_path / "resnet.pth", torchvision_names(trained))
  before = drawn.state()
  state = initialize(before, small_config(str(tmp_path / "resnet.pth")), tmp_path, print)
  assert jax.device_count() > 1
  for old, new in zip(jax.tree.leaves(before.params), jax.tree.leaves(state.params)):
    assert new.sharding == old.sharding
    assert new.dtype == old.dtype


def test_an_average_starts_from_the_same_weights(
  tmp_path: Path, drawn: SmallNetwork, trained: SmallNetwork
):
  write_weights(tmp_path / "resnet.pth", torchvision_names(trained))
  before = drawn.state()
  before = before._replace(average=drawn.state().weights)
  state = initialize(before, small_config(str(tmp_path / "resnet.pth")), tmp_path, print)
  trees = (state.average, Weights(state.params, state.batch_stats))
  for averaged, plain in zip(*map(jax.tree.leaves, trees)):
    np.testing.assert_array_equal(averaged, plain)
  kernels = [weights.params["backbone"]["conv1"]["kernel"] for weights in trees]
  np.testing.assert_array_equal(kernels[0], trained.params["backbone"]["conv1"]["kernel"])
  # A step writes over both, so they may not be one array.
  assert len({kernel.addressable_shards[0].data.unsafe_buffer_pointer() for kernel in kernels}) == 2


def test_backbone_with_a_wrong_shape(tmp_path: Path, drawn: SmallNetwork, trained: SmallNetwork):
  broken = torchvision_names(trained) | {"conv1.weight": np.zeros((64, 3, 3, 3))}
  write_weights(tmp_path / "resnet.pth", broken)
  with pytest.raises(StateDictError, match=r"resnet\.pth does not fit .*, 1 entries:\n.*conv1"):
    initialize(drawn.state(), small_config(str(tmp_path / "resnet.pth")), tmp_path, print)


@pytest.mark.parametrize("backbone", ARCHITECTURES)
def test_other_architectures_are_named(backbone: str):
  for other in ARCHITECTURES:
    names = names_of(other)
    if names == names_of(backbone):
      check_architecture(names, backbone, Path("file.pth"))
    else:
      found = other.removesuffix("_narrow")  # which only shapes tell
      message = rf"file\.pth: of a {found}, but config\.model\.backbone is {backbone}"
      with pytest.raises(BackboneError, match=message):
        check_architecture(names, backbone, Path("file.pth"))


def test_unknown_architecture_is_described():
  names = [*names_of("resnet50"), "layer3.6.conv1.weight"]
  with pytest.raises(BackboneError, match=r"of a ResNet of \(3, 4, 7, 3\) blocks, but"):
    check_architecture(names, "resnet50", Path("file.pth"))
  with pytest.raises(BackboneError, match=r"file\.pth: has no ResNet"):
    check_architecture(["features.0.weight"], "resnet50", Path("file.pth"))


@pytest.mark.parametrize("field", ["backbone", "checkpoint"])
def test_file_that_is_not_there(tmp_path: Path, drawn: SmallNetwork, field: str):
  config = small_config(**{field: str(tmp_path / "nowhere.pth")})
  with pytest.raises(InitializationError, match=rf"config\.init\.{field}: no .*nowhere\.pth"):
    initialize(drawn.state(), config, tmp_path, print)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: SmallNetwork) -> Path:
  """A folder in the place of torchvision's server, with one file; an empty cache."""
  folder = tmp_path / "server"
  folder.mkdir()
  write_weights(folder / "resnet.pth", torchvision_names(trained))
  name = f"resnet18-{sha256(folder / 'resnet.pth')[:8]}.pth"
  path = (folder / "resnet.pth").rename(folder / name)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(torchvision_weights, "_URL", folder.as_uri())
  monkeypatch.setattr(torchvision_weights, "_FILES", {"resnet18": name})
  return path


def test_imagenet_weights_are_downloaded_once(
  tmp_path: Path, server: Path, drawn: SmallNetwork, trained: SmallNetwork
):
  said = []
  initialize(drawn.state(), small_config("imagenet"), tmp_path, said.append)
  cached = tmp_path / "cache" / "magnifier_jax" / server.name
  assert said[0] == f"downloading {server.as_uri()} to {cached}"
  server.unlink()
  state = initialize(drawn.state(), small_config("imagenet"), tmp_path, said.append)
  assert len(said) == 3
  assert [path.name for path in cached.parent.iterdir()] == [server.name]
  expected = torchvision_names(trained)["conv1.weight"].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(state.params["backbone"]["conv1"]["kernel"], expected)


def test_offline_says_where_to_put_the_file(tmp_path: Path, server: Path):
  server.unlink()
  with pytest.raises(BackboneError) as caught:
    imagenet_weights("resnet18", print)
  assert f"put it at {tmp_path / 'cache' / 'magnifier_jax' / server.name}" in str(caught.value)
  assert f"cannot download {server.as_uri()}" in str(caught.value)
  assert "'none' to start from random weights" in str(caught.value)


@pytest.mark.parametrize("where", ["server", "cache"])
def test_changed_imagenet_file_is_refused(tmp_path: Path, server: Path, where: str):
  cache = tmp_path / "cache" / "magnifier_jax"
  data = server.read_bytes()[:-1] + b"?"
  if where == "server":
    server.write_bytes(data)
  else:
    cache.mkdir(parents=True)
    (cache / server.name).write_bytes(data)
  digest = hashlib.sha256(data).hexdigest()[:8]
  with pytest.raises(BackboneError, match=rf"SHA-256 begins with {digest}"):
    imagenet_weights("resnet18", print)
  assert where == "cache" or list(cache.iterdir()) == []


def test_a_backbone_without_an_imagenet_file_says_so(monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setattr(torchvision_weights, "_download", lambda *_: pytest.fail("downloads"))
  without = []
  for backbone in ARCHITECTURES:
    if backbone not in torchvision_weights._FILES:
      with pytest.raises(
        BackboneError, match=f"no.* ImageNet weights of a {backbone}; name a file"
      ):
        imagenet_weights(backbone, print)
      without.append(backbone)
  assert without == ["resnet10", "resnet10_narrow"]


def test_whole_network_of_other_people(tmp_path: Path, drawn: SmallNetwork, trained: SmallNetwork):
  path, said = tmp_path / "network.safetensors", []
  write_weights(path, trained.state_dict)
  # The backbone's own field is not looked at.
  config = small_config(backbone="imagenet", checkpoint=str(path))
  state = initialize(drawn.state(), config, tmp_path, said.append)
  classifiers = {name: a for name, a in drawn.state_dict.items() if is_classifier(name)}
  assert len(classifiers) == 2 * (3 + 8)
  assert_same(state, trained.state_dict | classifiers)
  assert said == [f"weights: {path}; its 5 people are not these 3: classifiers stay as drawn"]


def test_whole_network_of_as_many_people(tmp_path: Path, trained: SmallNetwork):
  other, said = small_network(num_people=5, seed=2), []
  write_weights(tmp_path / "network.pth", trained.state_dict)
  config = small_config(checkpoint=str(tmp_path / "network.pth"))
  assert_same(initialize(other.state(), config, tmp_path, said.append), trained.state_dict)
  assert "with its classifiers of 5 people" in said[0]


def test_backbone_alone_is_no_whole_network(
  tmp_path: Path, drawn: SmallNetwork, trained: SmallNetwork
):
  backbone = {n: a for n, a in trained.state_dict.items() if n.startswith("base.model.")}
  write_weights(tmp_path / "backbone.pth", backbone)
  config = small_config(checkpoint=str(tmp_path / "backbone.pth"))
  with pytest.raises(StateDictError, match=r"not a MagnifierNet.*config\.init\.backbone"):
    initialize(drawn.state(), config, tmp_path, print)
