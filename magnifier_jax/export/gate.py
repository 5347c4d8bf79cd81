"""The gate: an exported file must give what this package's network gives, or it is not kept."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from magnifier_jax.body_parts import PART_NAMES
from magnifier_jax.export.onnx_graph import PART_LOGITS
from magnifier_jax.export.packages import import_onnx
from magnifier_jax.export.programs import onnx_session, open_program
from magnifier_jax.export.reference import Reference
from magnifier_jax.export.signature import INPUT_NAME, Signature

BATCHES = (1, 2, 7)  # together they hold every image of the reference once
NUM_IMAGES = sum(BATCHES)
LIMIT = 1e-4  # of the norm of a difference, relative to the norm of what is expected
# Of the largest logit of an image: two parts whose logits are closer are told apart by rounding.
_NEAR_TIE = 1e-5
_LEAST_COMPARED = NUM_IMAGES // 2  # images without a near-tie that changed them


class ParityError(Exception):
  """An exported file computes something else than the network; it must not be used."""


class NearTie(NamedTuple):
  """A pixel where rounding decides between two parts."""

  image: int
  row: int  # on the grid of stage 3
  column: int
  parts: tuple[str, str]  # the likeliest, and the next
  margin: float  # between their logits, relative to the image's largest


class Parity(NamedTuple):
  """How far an exported file is from the network.

  Attributes:
    differences: {branch: largest relative norm of an image's difference}.
    near_ties: those where the file takes the other part; in StableHLO, which does not show its
      parts, all of the images that were left out.
    left_out: images that such a pixel changed, and that were not compared.
  """

  differences: dict[str, float]
  near_ties: tuple[NearTie, ...] = ()
  left_out: tuple[int, ...] = ()

  def to_json(self) -> dict[str, Any]:
    """Returns what `model.json` says of it."""
    ties = [tie._asdict() for tie in self.near_ties]
    return {
      "largest_relative_difference": self.differences,
      "near_ties": ties,
      "images_left_out": list(self.left_out),
    }


def check(file: Path, reference: Reference, signature: Signature) -> Parity:
  """Compares an exported file with the network, on a CPU, in batches of 1, 2 and 7 images.

  Args:
    file: `.onnx` or `.stablehlo`.
    reference: of `NUM_IMAGES` images.
    signature: of the file.

  Raises:
    ParityError: names the branch and by how much it differs.
    ExportError: when the file cannot be run.
  """
  if not np.isfinite(reference.embeddings).all():
    raise ParityError("the network itself gives NaN or infinities: its weights are of no use")
  embeddings = _run_in_batches(file, reference.images, signature)
  differences = {
    branch: relative_norms(ours, expected)
    for (branch, ours), expected in zip(
      signature.by_branch(embeddings).items(),
      signature.by_branch(reference.embeddings).values(),
      strict=True,
    )
  }
  # Another part at one pixel changes the fusion branch, and with it the length of the whole.
  ties = [] if reference.part_logits is None else near_ties(reference.part_logits)
  differs = ~np.all([values <= LIMIT for values in differences.values()], axis=0)
  is_tied = np.isin(np.arange(NUM_IMAGES), [tie.image for tie in ties])
  left_out = differs & is_tied & np.isfinite(embeddings).all(axis=1)
  _check_number(left_out)
  found = {branch: float(values[~left_out].max()) for branch, values in differences.items()}
  part_logits = None
  if reference.part_logits is not None and file.suffix == ".onnx":
    part_logits = _part_logits(file, signature.to_input(reference.images)).transpose(0, 2, 3, 1)
  head = {} if part_logits is None else _head_difference(part_logits, reference.part_logits)
  _check_differences(found | head)
  if part_logits is None:
    taken = [tie for tie in ties if left_out[tie.image]]
  else:
    taken = _other_parts(part_logits, reference.part_logits, ties)
  return Parity(found, tuple(taken), tuple(np.flatnonzero(left_out).tolist()))


def relative_norms(ours: np.ndarray, expected: np.ndarray) -> np.ndarray:
  """Returns each row's norm of the difference over the norm of what is expected, [N]."""
  length = np.linalg.norm(expected.reshape(len(expected), -1), axis=1)
  difference = np.linalg.norm((ours - expected).reshape(len(expected), -1), axis=1)
  return difference / np.maximum(length, np.finfo(np.float32).tiny)


def near_ties(part_logits: np.ndarray) -> list[NearTie]:
  """Returns the pixels where rounding decides which part they are.

  Args:
    part_logits: [N, h, w, S].
  """
  order = np.argsort(-part_logits, axis=-1, kind="stable")[..., :2]
  first, second = np.moveaxis(np.take_along_axis(part_logits, order, -1), -1, 0)
  largest = np.abs(part_logits).max(axis=(1, 2, 3), keepdims=True)[..., 0]
  margins = (first - second) / np.maximum(largest, np.finfo(np.float32).tiny)
  return [
    NearTie(
      *map(int, place),
      parts=tuple(PART_NAMES[part] for part in order[tuple(place)]),
      margin=float(margins[tuple(place)]),
    )
    for place in np.argwhere(margins <= _NEAR_TIE)
  ]


def _run_in_batches(file: Path, images: np.ndarray, signature: Signature) -> np.ndarray:
  program, rows, start = open_program(file, on_cpu=True), [], 0
  for size in BATCHES:
    batch = images[start : start + size]
    rows.append(program(signature.to_input(batch)))
    start += size
    if rows[-1].shape != (size, signature.width):
      raise ParityError(
        f"a batch of {size} gives {rows[-1].shape} in place of {(size, signature.width)}"
      )
  return np.concatenate(rows)


def _check_number(left_out: np.ndarray) -> None:
  if NUM_IMAGES - left_out.sum() < _LEAST_COMPARED:
    raise ParityError(
      f"{left_out.sum()} of {NUM_IMAGES} images differ and have pixels where two body parts are "
      "equally likely; the part segmentation head is not trained"
    )


def _head_difference(ours: np.ndarray, expected: np.ndarray) -> dict[str, float]:
  return {"part segmentation head": float(relative_norms(ours, expected).max())}


def _check_differences(found: dict[str, float]) -> None:
  # NaN must fail, so not `> LIMIT`.
  wrong = {name: value for name, value in found.items() if not value <= LIMIT}
  if wrong:
    # The one that is wrong first: by the length of the whole it changes the others too.
    worst_first = sorted(wrong, key=lambda name: -np.nan_to_num(wrong[name], nan=np.inf))
    named = ", ".join(f"{name} by {wrong[name]:.1e}" for name in worst_first)
    raise ParityError(
      f"it differs from the network by more than {LIMIT:.0e} (relative norm): {named}"
    )


def _other_parts(ours: np.ndarray, expected: np.ndarray, ties: list[NearTie]) -> list[NearTie]:
  """Returns the near-ties at which logits [N, h, w, S] choose another part.

  Raises:
    ParityError: when they do anywhere else.
  """
  other = {tuple(place) for place in np.argwhere(ours.argmax(-1) != expected.argmax(-1)).tolist()}
  known = {(tie.image, tie.row, tie.column): tie for tie in ties}
  unexplained = sorted(other - known.keys())
  if unexplained:
    raise ParityError(
      f"it finds other body parts at {len(unexplained)} pixels where the network is sure, the "
      "first in image {}, row {}, column {}".format(*unexplained[0])
    )
  return [known[place] for place in sorted(other)]


def _part_logits(file: Path, images: np.ndarray) -> np.ndarray:
  """Returns the value [N, S, h, w] within the very file that the parts are chosen by."""
  onnx = import_onnx()
  model = onnx.load(str(file))
  model.graph.output.append(onnx.ValueInfoProto(name=PART_LOGITS))
  session = onnx_session(model.SerializeToString(), str(file), on_cpu=True)
  (logits,) = session.run([PART_LOGITS], {INPUT_NAME: images})
  return logits
