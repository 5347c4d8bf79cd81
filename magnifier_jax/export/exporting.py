"""Exports a trained network: builds the files, lets them through the gate, describes them."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from magnifier_jax.export import layout, model_card
from magnifier_jax.export.description import describe
from magnifier_jax.export.gate import NUM_IMAGES, Parity, ParityError, check
from magnifier_jax.export.gate_images import gate_images
from magnifier_jax.export.network_arrays import network_arrays
from magnifier_jax.export.onnx_file import append_metadata
from magnifier_jax.export.onnx_graph import build_model
from magnifier_jax.export.opened import read_description
from magnifier_jax.export.packages import ExportError, import_onnx, import_onnxruntime
from magnifier_jax.export.reference import (
  Float32Network,
  compute_reference,
  float32_network,
  signature_of,
)
from magnifier_jax.export.signature import Signature
from magnifier_jax.export.stablehlo import stablehlo_program
from magnifier_jax.files.whole_file import write_bytes, write_json, write_text
from magnifier_jax.files.whole_folder import new_folder
from magnifier_jax.trained_network import open_trained_network
from magnifier_jax.weights.digest import weights_sha256


class ExportOptions(NamedTuple):
  """What to export.

  Attributes:
    formats: of 'onnx' and 'stablehlo'.
    branches: to be exported; () is all that the network has.
    input: 'float32' takes images that were normalised outside, 'uint8' pixels.
    checkpoint: of the workdir; 'best' is by mAP.
    overwrite: whether a folder that was exported before may be replaced.
  """

  formats: tuple[str, ...] = ("onnx",)
  branches: tuple[str, ...] = ()
  input: Literal["float32", "uint8"] = "float32"
  checkpoint: Literal["latest", "best"] = "latest"
  overwrite: bool = False


class Exported(NamedTuple):
  """A folder that was written.

  Attributes:
    folder: of the files.
    description: as in `model.json`.
    parity: {file's name: how far it is from the network}.
  """

  folder: Path
  description: dict[str, Any]
  parity: dict[str, Parity]


def export_network(
  workdir: Path, output: Path, options: ExportOptions, say: Callable[[str], None]
) -> Exported:
  """Exports the network of a workdir. A folder is written whole or not at all.

  Args:
    workdir: of a trained run.
    output: folder to write.
    options: what to export.
    say: is told what is being done.

  Raises:
    ParityError: when a file gives something else than the network; nothing is written.
    ExportError: when there is nothing to export, or a package is missing.
    CheckpointError: when the workdir has no checkpoint that is whole.
    MetricsError: when a file in the workdir is damaged.
    WriteError: when the folder cannot be written.
  """
  check_output(output, options.overwrite)
  if "onnx" in options.formats:
    import_onnx()
    import_onnxruntime()
  if not workdir.is_dir():
    raise ExportError(f"--network: no workdir {workdir}; name one that a run was trained in")
  trained = open_trained_network(workdir, options.checkpoint)
  signature = signature_of(trained, options.branches, options.input)
  with new_folder(output) as folder:
    say(f"checkpoint of step {trained.step} in {workdir}: {', '.join(signature.branches)}")
    net = float32_network(trained)
    images = gate_images(trained.config.data, NUM_IMAGES)
    reference = compute_reference(net, signature, images.pixels)
    parity = {}
    for name in map(layout.NETWORK_FILES.get, options.formats):
      say(f"building {name}")
      write_bytes(folder / name, _content(name, net, trained.config.model, signature))
      say(f"checking {name} on {images.described}")
      try:
        parity[name] = check(folder / name, reference, signature)
      except ParityError as error:
        raise ParityError(f"{name}: {error}. Nothing was written to {output}") from error
    digest = weights_sha256(trained.params, trained.batch_stats)
    description = describe(trained, workdir, signature, digest, parity, images.described)
    description = _describe_files(folder, description)
  return Exported(output, description, parity)


def check_output(output: Path, overwrite: bool) -> None:
  """Keeps an export from replacing what another program, or the user, has written.

  Raises:
    ExportError: when something is there that may not be replaced.
  """
  if not os.path.lexists(output):
    return
  if not output.is_dir():
    raise ExportError(f"--output: {output} is no folder; name another place")
  names = sorted(os.listdir(output))
  if not names:
    return
  if not overwrite:
    raise ExportError(f"--output: {output} is there already; --overwrite replaces an exported one")
  foreign = [name for name in names if name not in layout.FILES]
  if foreign:
    raise ExportError(
      f"--output: {output} holds {foreign[0]}, which is no part of an exported network; name "
      "another folder"
    )
  read_description(output)


def _content(name: str, net: Float32Network, config: Any, signature: Signature) -> bytes:
  if name == layout.STABLEHLO_FILE:
    return stablehlo_program(net, signature)
  arrays = network_arrays(net.params, net.batch_stats)
  return build_model(arrays, config, signature).SerializeToString()


def _describe_files(folder: Path, description: dict[str, Any]) -> dict[str, Any]:
  """Writes what is beside the files of the network; returns the contents of `model.json`."""
  if (folder / layout.ONNX_FILE).exists():
    append_metadata(folder / layout.ONNX_FILE, description)
  files = {}
  for file in sorted(folder.iterdir()):
    with file.open("rb") as stream:
      digest = hashlib.file_digest(stream, "sha256").hexdigest()
    files[file.name] = {"bytes": file.stat().st_size, "sha256": digest}
  description = description | {"files": files}
  write_json(folder / layout.DESCRIPTION_FILE, description)
  write_text(folder / layout.CARD_FILE, model_card.render(description))
  return description
