"""The gate lets nothing through that gives something else than the network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from magnifier_jax.body_parts import PART_NAMES
from magnifier_jax.export import gate
from magnifier_jax.export.gate import LIMIT, NUM_IMAGES, ParityError, check, near_ties
from magnifier_jax.export.reference import Reference

from .conftest import Case

ChangeWeight = Callable[[str, float], None]


def test_a_right_file_passes(lstm: Case, onnx_file: Path):
  parity = check(onnx_file, lstm.reference, lstm.signature)
  assert parity.differences.keys() == lstm.signature.branches.keys()
  assert 0 < max(parity.differences.values()) < LIMIT / 10
  assert (parity.near_ties, parity.left_out) == ((), ())


@pytest.mark.parametrize(
  ("weight", "by", "named"),
  [
    ("global_branch/bnneck/offset", 0.1, "global by"),
    ("adversarial_branch/reduce/kernel", 0.1, "adversarial by"),
    ("fusion_branch/fusion/kernel_hidden", 0.1, "fusion by"),
    ("fusion_branch/fusion/step0/from_hidden", 0.1, "fusion by"),
    ("backbone/conv1/kernel", 0.01, "global by"),
    ("part_segmentation/upsample/bias", 0.1, "part segmentation head by"),
    ("part_logits/bias", 0.001, "part segmentation head by"),
    ("backbone/conv1/kernel", np.nan, "global by nan"),
  ],
)
def test_one_changed_weight_is_refused(
  lstm: Case, onnx_file: Path, change_weight: ChangeWeight, weight: str, by: float, named: str
):
  change_weight(weight, by)
  with pytest.raises(ParityError, match=named):
    check(onnx_file, lstm.reference, lstm.signature)


def test_branches_in_another_order_are_refused(lstm: Case, onnx_file: Path):
  widths = lstm.signature.branches
  other = lstm.signature._replace(branches=dict(reversed(widths.items())))
  lstm._replace(signature=other).write_onnx(onnx_file)
  with pytest.raises(ParityError, match=r"global by"):
    check(onnx_file, lstm.reference, lstm.signature)


def test_a_file_without_the_other_branches_is_refused(lstm: Case, onnx_file: Path):
  lstm.of("global").write_onnx(onnx_file)
  with pytest.raises(ParityError, match=r"a batch of 1 gives \(1, 64\) in place of \(1, 104\)"):
    check(onnx_file, lstm.reference, lstm.signature)


def test_a_network_of_nan_is_not_exported(lstm: Case, onnx_file: Path):
  broken = lstm.reference._replace(embeddings=lstm.reference.embeddings * np.nan)
  with pytest.raises(ParityError, match="the network itself gives NaN"):
    check(onnx_file, broken, lstm.signature)


def test_a_near_tie_is_named_and_its_image_left_out(
  lstm: Case, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
):
  logits, embeddings = lstm.reference.part_logits.copy(), lstm.reference.embeddings.copy()
  pixel = logits[4, 2, 1]  # of image 4, which the file takes for another part
  first, second = np.argsort(-pixel)[:2]
  pixel[second] = np.nextafter(pixel[first], np.float32(-np.inf))
  others = logits.copy()
  others[4, 2, 1, [first, second]] = pixel[[second, first]]
  embeddings[4, -24:] *= 1.01
  monkeypatch.setattr(gate, "_part_logits", lambda file, images: others.transpose(0, 3, 1, 2))
  parity = check(onnx_file, Reference(lstm.reference.images, embeddings, logits), lstm.signature)
  assert parity.left_out == (4,)
  [tie] = parity.near_ties
  assert (tie.image, tie.row, tie.column) == (4, 2, 1)
  assert tie.parts == (PART_NAMES[first], PART_NAMES[second])
  assert 0 < tie.margin < 1e-6
  assert max(parity.differences.values()) < LIMIT / 10


def test_nan_hides_behind_no_near_tie(lstm: Case, onnx_file: Path, monkeypatch: pytest.MonkeyPatch):
  tied = np.zeros_like(lstm.reference.part_logits)
  monkeypatch.setattr(gate, "_part_logits", lambda file, images: tied.transpose(0, 3, 1, 2))
  rows = lstm.reference.embeddings.copy()
  rows[4] = np.nan
  monkeypatch.setattr(gate, "_run_in_batches", lambda *arguments: rows)
  with pytest.raises(ParityError, match="global by nan"):
    check(onnx_file, lstm.reference._replace(part_logits=tied), lstm.signature)


def test_another_part_where_the_network_is_sure_is_refused(
  lstm: Case, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
):
  # The second part is less likely by 5e-5 of the largest logit, and the file is off by twice that.
  logits = np.full_like(lstm.reference.part_logits, 1000)
  logits[..., 1] += 0.05
  others = logits.copy()
  others[4, 2, 1, 2] += 0.1
  sure = lstm.reference._replace(part_logits=logits)
  monkeypatch.setattr(gate, "_part_logits", lambda file, images: others.transpose(0, 3, 1, 2))
  with pytest.raises(ParityError, match="other body parts at 1 pixels"):
    check(onnx_file, sure, lstm.signature)


def test_a_difference_without_a_near_tie_is_refused(lstm: Case, onnx_file: Path):
  embeddings = lstm.reference.embeddings.copy()
  embeddings[4, -24:] *= 1.01
  other = lstm.reference._replace(embeddings=embeddings)
  with pytest.raises(ParityError, match=r"fusion by 9\.9e-03"):
    check(onnx_file, other, lstm.signature)


def test_images_do_not_all_hide_behind_near_ties(
  lstm: Case, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
):
  tied = np.zeros_like(lstm.reference.part_logits)
  assert {tie.image for tie in near_ties(tied)} == set(range(NUM_IMAGES))
  monkeypatch.setattr(gate, "_part_logits", lambda file, images: tied.transpose(0, 3, 1, 2))
  other = Reference(lstm.reference.images, -lstm.reference.embeddings, tied)
  with pytest.raises(ParityError, match=r"10 of 10 images differ .* head is not trained"):
    check(onnx_file, other, lstm.signature)
