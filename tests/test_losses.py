"""Losses against numpy loops, and on degenerate batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magnifier_jax import losses

RANDOM = np.random.default_rng(0)
PERSON_ID = np.repeat(np.arange(4), 3).astype(np.int32)


def _triplet_by_loop(features: np.ndarray, person_id: np.ndarray, margin: float) -> float:
  total = 0.0
  for i, anchor in enumerate(features):
    distances = np.linalg.norm(features - anchor, axis=1)
    positive = max(distances[j] for j in range(len(features)) if person_id[j] == person_id[i])
    negative = min(distances[j] for j in range(len(features)) if person_id[j] != person_id[i])
    total += max(0.0, positive - negative + margin)
  return total / len(features)


def test_triplet_loss_equals_a_loop():
  features = RANDOM.standard_normal((12, 5)).astype(np.float32)
  ours = losses.batch_hard_triplet_loss(jnp.asarray(features), PERSON_ID, 0.3)
  np.testing.assert_allclose(ours, _triplet_by_loop(features, PERSON_ID, 0.3), rtol=1e-5)


@pytest.mark.parametrize(
  ("features", "person_id"),
  [
    pytest.param(RANDOM.standard_normal((6, 4)), np.zeros(6), id="one person"),
    pytest.param(np.ones((6, 4)), np.repeat([0, 1, 2], 2), id="identical vectors"),
    pytest.param(RANDOM.standard_normal((4, 4)), np.arange(4), id="one image each"),
    pytest.param(np.zeros((4, 4)), np.repeat([0, 1], 2), id="zero vectors"),
  ],
)
def test_triplet_loss_is_finite(features: np.ndarray, person_id: np.ndarray):
  value, gradient = jax.value_and_grad(losses.batch_hard_triplet_loss)(
    jnp.asarray(features, jnp.float32), person_id.astype(np.int32), 0.3
  )
  assert np.isfinite(value)
  assert np.isfinite(gradient).all()


def test_triplet_loss_of_one_person_is_zero():
  features = RANDOM.standard_normal((6, 4)).astype(np.float32)
  assert losses.batch_hard_triplet_loss(jnp.asarray(features), np.zeros(6, np.int32), 0.3) == 0


def _diversity_by_loop(parts: np.ndarray) -> float:
  similarities = []
  for i in range(parts.shape[1]):
    for j in range(i + 1, parts.shape[1]):
      norms = np.linalg.norm(parts[:, i], axis=1) * np.linalg.norm(parts[:, j], axis=1)
      products = (parts[:, i] * parts[:, j]).sum(axis=1)
      similarities.append(np.where(norms > 0, products / np.maximum(norms, 1e-12), 0).mean())
  return max(0.0, float(np.mean(similarities)))


def test_diversity_loss_equals_a_loop_over_pairs():
  parts = np.abs(RANDOM.standard_normal((3, 8, 6))).astype(np.float32)
  parts[0, 2] = parts[1, 2] = 0  # absent from two images
  parts[:, 5] = 0  # absent from the batch
  ours = losses.semantic_diversity_loss(jnp.asarray(parts))
  np.testing.assert_allclose(ours, _diversity_by_loop(parts), rtol=1e-5)


def test_diversity_loss_is_not_negative():
  parts = np.zeros((1, 8, 2), np.float32)
  parts[0, 0], parts[0, 1] = [1, 0], [-1, 0]
  assert losses.semantic_diversity_loss(jnp.asarray(parts)) == 0


def test_absent_parts_give_the_diversity_loss_no_gradient():
  parts = np.abs(RANDOM.standard_normal((2, 8, 6))).astype(np.float32)
  parts[:, 3] = 0
  gradient = np.asarray(jax.grad(losses.semantic_diversity_loss)(jnp.asarray(parts)))
  assert np.isfinite(gradient).all()
  assert (gradient[:, 3] == 0).all()
  assert (gradient[:, 4] != 0).any()


def _segmentation_by_loop(logits: np.ndarray, labels: np.ndarray) -> float:
  log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  class_losses = []
  for part in range(logits.shape[-1]):
    pixels = log_probabilities[labels == part]
    if len(pixels):
      class_losses.append(-pixels[:, part].mean())
  return float(np.mean(class_losses))


def test_segmentation_loss_averages_within_classes_first():
  logits = RANDOM.standard_normal((2, 6, 4, 8)).astype(np.float32)
  labels = RANDOM.integers(0, 5, (2, 6, 4)).astype(np.uint8)  # 5, 6 and 7 are absent
  ours, gradient = jax.value_and_grad(losses.part_segmentation_loss)(jnp.asarray(logits), labels)
  np.testing.assert_allclose(ours, _segmentation_by_loop(logits, labels), rtol=1e-5)
  assert np.isfinite(gradient).all()


def test_id_loss_smooths_labels():
  logits = RANDOM.standard_normal((4, 5)).astype(np.float32)
  person_id = np.array([0, 1, 4, 2], np.int32)
  log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
  targets = 0.9 * np.eye(5)[person_id] + 0.1 / 5
  expected = -(targets * log_probabilities).sum(axis=1).mean()
  np.testing.assert_allclose(losses.id_loss(logits, person_id, 0.1), expected, rtol=1e-5)


def test_id_loss_of_parts_is_one_value_a_part():
  logits = RANDOM.standard_normal((4, 8, 5)).astype(np.float32)
  person_id = np.array([0, 1, 4, 2], np.int32)
  expected = [losses.id_loss(logits[:, part], person_id, 0.1) for part in range(8)]
  np.testing.assert_allclose(losses.id_loss(logits, person_id, 0.1), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", ["id", "triplet", "diversity", "segmentation"])
def test_bfloat16_inputs_give_float32_losses(loss: str):
  features = jnp.asarray(RANDOM.standard_normal((12, 8, 4)), jnp.bfloat16)
  value = {
    "id": lambda: losses.id_loss(features[:, 0], PERSON_ID % 4, 0.1),
    "triplet": lambda: losses.batch_hard_triplet_loss(features[:, 0], PERSON_ID, 0.3),
    "diversity": lambda: losses.semantic_diversity_loss(features),
    "segmentation": lambda: losses.part_segmentation_loss(
      features[:, :, None].swapaxes(1, 3), np.zeros((12, 4, 1), np.uint8)
    ),
  }[loss]()
  assert value.dtype == jnp.float32
