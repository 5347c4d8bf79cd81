"""torchvision's weights of a ResNet: the ImageNet files, their cache, which ResNet a file is."""

import contextlib
import http.client
import os
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np

from magnifier_jax.devices.user_cache import cache_directory
from magnifier_jax.errors import UserError
from magnifier_jax.interop.state_dict import load_state_dict
from magnifier_jax.interop.weights_file import WeightsFile, read_weights, sha256
from magnifier_jax.models.resnet import ARCHITECTURES, Bottleneck
from magnifier_jax.train_state import Tree

# https://pytorch.org/vision/stable/models.html, IMAGENET1K_V1, with which the authors trained. The
# eight digits begin the SHA-256 of the file.
_URL = "https://download.pytorch.org/models"
_FILES = {
  "resnet18": "resnet18-f37072fd.pth",
  "resnet34": "resnet34-b627a593.pth",
  "resnet50": "resnet50-0676ba61.pth",
  "resnet101": "resnet101-63fe2227.pth",
}
_TIMEOUT_SECONDS = 30
_BACKBONE = "base.model."  # in the names of the authors' network


class BackboneError(UserError):
  """The weights of a backbone cannot be had, or are of another one."""


def imagenet_weights(backbone: str, say: Callable[[str], None]) -> WeightsFile:
  """Reads torchvision's weights, after downloading them if they are not in the cache.

  Args:
    backbone: a key of `ARCHITECTURES`.
    say: is told of a download before it starts.

  Raises:
    BackboneError: when they cannot be downloaded, or are not the file that their name says.
  """
  path = cache_directory() / _FILES[backbone]
  if not path.exists():
    _download(f"{_URL}/{path.name}", path, say)
  _check_digest(path, path)
  return read_weights(path)


def _download(url: str, path: Path, say: Callable[[str], None]) -> None:
  """Downloads to `path`, which appears only when it is whole and right."""
  say(f"downloading {url} to {path}")
  temporary = None
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
      temporary = Path(file.name)
      with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
        shutil.copyfileobj(response, file)
    _check_digest(temporary, path)
    os.replace(temporary, path)
  except (OSError, http.client.HTTPException) as error:
    raise BackboneError(
      f"config.init.backbone: cannot download {url} ({error}). Download it elsewhere and put it at "
      f"{path}; or set the field to another file, or to 'none' to start from random weights"
    ) from error
  finally:
    with contextlib.suppress(OSError, TypeError):
      temporary.unlink()


def _check_digest(path: Path, named: Path) -> None:
  """Checks the bytes of `path` against the digits in the name of `named`."""
  expected, digest = named.stem.split("-")[1], sha256(path)
  if not digest.startswith(expected):
    raise BackboneError(
      f"{named}: the SHA-256 begins with {digest[:8]}, but torchvision's with {expected}; the "
      "download was cut short or changed. Delete the file if it is there, and download it again"
    )


def load_backbone(weights: WeightsFile, backbone: str, params: Tree, batch_stats: Tree) -> tuple:
  """Returns the backbone's (params, batch_stats) from a file with torchvision's names.

  Args:
    weights: of a ResNet; its classifier `fc` is left out.
    backbone: a key of `ARCHITECTURES`.
    params: with the key `backbone`, whose shapes and dtypes are kept.
    batch_stats: likewise.

  Raises:
    BackboneError: when the file is of another ResNet, or of something else.
    StateDictError: when single entries do not fit.
  """
  kept = {name: array for name, array in weights.state_dict.items() if not name.startswith("fc.")}
  check_architecture(kept, backbone, weights.path)
  named = {_BACKBONE + name: array for name, array in kept.items()}
  trees = ({"backbone": tree["backbone"]} for tree in (params, batch_stats))
  return load_state_dict(named, *trees, source=str(weights.path))


def check_whole_network(state_dict: Mapping[str, np.ndarray], backbone: str, source: Path) -> None:
  """Raises `BackboneError` unless the backbone of a whole MagnifierNet is `backbone`."""
  names = [name.removeprefix(_BACKBONE) for name in state_dict if name.startswith(_BACKBONE)]
  check_architecture(names, backbone, source)


def check_architecture(names: Collection[str], backbone: str, source: Path) -> None:
  """Raises `BackboneError` unless torchvision's names are those of `backbone`."""
  blocks = {match.groups() for name in names if (match := re.match(r"layer([1-4])\.(\d+)\.", name))}
  sizes = tuple(sum(stage == str(i) for stage, _ in blocks) for i in range(1, 5))
  bottleneck = "layer1.0.conv3.weight" in names
  found = next(
    (
      name
      for name, known in ARCHITECTURES.items()
      if known.stage_sizes == sizes and (known.block is Bottleneck) == bottleneck
    ),
    f"ResNet of {sizes} blocks" if any(sizes) else "",
  )
  if not found:
    raise BackboneError(f"{source}: has no ResNet; there is no layer1.0.conv1.weight in it")
  if found != backbone:
    raise BackboneError(
      f"{source}: of a {found}, but config.model.backbone is {backbone}; change the field, or take "
      "another file"
    )
