"""`model.json`: all one has to know of an exported network, also in an ONNX file's metadata."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnifier_jax.evaluation.thresholds import changed_in_each
from magnifier_jax.export.example import example_lines
from magnifier_jax.export.gate import BATCHES, LIMIT, Parity
from magnifier_jax.export.layout import FORMAT, VERSION
from magnifier_jax.export.reference import branch_widths
from magnifier_jax.export.results import calibrated_thresholds, read_object, read_results
from magnifier_jax.export.signature import INPUT_NAME, OUTPUT_NAME, Signature
from magnifier_jax.trained_network import TrainedNetwork
from magnifier_jax.workdir.origin import ORIGIN

_WHOLE_ROWS = ("all", "all, re-ranked")  # of metrics.json: they are of all branches together
_WHOLE = "whole"  # of thresholds


def describe(
  trained: TrainedNetwork,
  workdir: Path,
  signature: Signature,
  weights_sha256: str,
  parity: Mapping[str, Parity],
  images: str,
) -> dict[str, Any]:
  """Returns the contents of `model.json`, but for the files' own hashes.

  Args:
    trained: the network.
    workdir: that it was opened from; what was measured and where the weights came from lie there.
    signature: of the exported files.
    weights_sha256: of the network's weights.
    parity: {file's name: how far it is from the network}.
    images: whose images the parity was measured on.

  Raises:
    MetricsError, ThresholdError: when a file in the workdir is damaged.
  """
  own, others = read_results(workdir, trained.step)
  thresholds = calibrated_thresholds(workdir, trained.step)
  return {
    "format": FORMAT,
    "version": VERSION,
    "name": trained.config.name,
    "input": _input(signature),
    "output": {
      "name": OUTPUT_NAME,
      "shape": [signature.input_shape[0], signature.width],
      "l2_normalized": True,
      "branches": [{"name": name, "width": width} for name, width in signature.branches.items()],
    },
    "weights_sha256": weights_sha256,
    "step": trained.step,
    "people": trained.record.num_people,
    "initial_weights": read_object(workdir / ORIGIN),
    "config": trained.record.config,
    "metrics": own and _metrics(own, signature, trained),
    "tested_on": {name: _metrics(found, signature, trained) for name, found in others.items()},
    "thresholds": thresholds
    and changed_in_each(thresholds, lambda found: _thresholds(found, signature, trained)),
    "parity": {
      "images": images,
      "batches": list(BATCHES),
      "limit": LIMIT,
      "files": {name: found.to_json() for name, found in parity.items()},
    },
    "example": example_lines(signature, parity),
  }


def _input(signature: Signature) -> dict[str, Any]:
  return {
    "name": INPUT_NAME,
    "dtype": signature.input,
    "layout": signature.layout,
    "shape": list(signature.input_shape),
    "colors": "RGB",
    "size_hw": list(signature.image_size_hw),
    "resize": {
      "filter": "bilinear, wider where the image shrinks: Pillow's Resampling.BILINEAR",
      "rounding": "to whole levels after each axis",
    },
    "normalized": "inside" if signature.input == "uint8" else "outside: (pixels - mean) / std",
    "mean": list(signature.pixel_mean),
    "std": list(signature.pixel_std),
  }


def _metrics(
  metrics: Mapping[str, Any], signature: Signature, trained: TrainedNetwork
) -> dict[str, Any]:
  """Returns what was measured of the branches that the file has."""
  rows = signature.branches.keys() | (_WHOLE_ROWS if _is_whole(signature, trained) else set())
  return {
    name: value
    for name, value in metrics.items()
    if name != "thresholds" and (not isinstance(value, dict) or name in rows)
  }


def _thresholds(
  found: Mapping[str, Any], signature: Signature, trained: TrainedNetwork
) -> Mapping[str, Any]:
  """Returns the thresholds of the file's own whole, and of its branches."""
  gone = branch_widths(trained).keys() - signature.branches.keys()
  if _is_whole(signature, trained):
    return found
  kept = {name: value for name, value in found.items() if name not in {_WHOLE, *gone}}
  if len(signature.branches) == 1:
    (branch,) = signature.branches
    kept |= {_WHOLE: found[branch]} if branch in found else {}
  return kept


def _is_whole(signature: Signature, trained: TrainedNetwork) -> bool:
  return signature.branches.keys() == branch_widths(trained).keys()
