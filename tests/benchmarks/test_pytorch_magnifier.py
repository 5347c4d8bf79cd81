"""The PyTorch twin against the authors' numbers, and against our network where they have none.

The twin is what we are timed against; nothing else depends on it. So what takes long is slow.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from configs.cuhk03 import get_config
from magnifier_jax import train_step
from magnifier_jax.config import Config
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.interop.state_dict import load_state_dict
from magnifier_jax.train_state import Batch
from tests.golden_numbers import LOSS_NAMES, assert_close, fixture, golden

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install .[torch]")

from benchmarks.pytorch_magnifier import Options, Twin  # noqa: E402
from benchmarks.pytorch_network import part_max_pool  # noqa: E402

FLOAT64 = Options(dtype=torch.float64)
RTOL, GRADIENT_RTOL, AFTER3_RTOL = 1e-6, 1e-5, 1e-4


class Theirs(NamedTuple):
  """What the twin computes on the fixture, at 128 × 64 in float64."""

  embedding: np.ndarray
  outputs: dict[str, np.ndarray]
  losses: list[dict[str, np.ndarray]]
  gradients: dict[str, np.ndarray]
  statistics: dict[str, np.ndarray]
  embedding_after3: np.ndarray


@functools.cache
def compute() -> Theirs:
  twin = Twin(_config(), fixture.NUM_CLASSES, FLOAT64)
  twin.network.load_state_dict(_tensors(fixture.state_dict()))
  batch = _fixture_batch()
  outputs = {}
  hook = twin.network.register_forward_hook(lambda *call: outputs.update(call[-1]._asdict()))
  embedding = twin.embed(batch.image)
  losses = [twin.step(batch)]
  hook.remove()
  gradients = {
    name: parameter.grad.numpy().copy()
    for name, parameter in twin.network.named_parameters()
    if parameter.grad is not None
  }
  statistics = {name: buffer.numpy().copy() for name, buffer in twin.network.named_buffers()}
  losses += [twin.step(batch) for _ in range(2)]
  return Theirs(
    embedding=embedding.numpy(),
    outputs={name: value.detach().numpy() for name, value in outputs.items()},
    losses=[{name: term.numpy() for name, term in terms.items()} for terms in losses],
    gradients=gradients,
    statistics=statistics,
    embedding_after3=twin.embed(batch.image).numpy(),
  )


def _config(variant: str = "labeled") -> Config:
  config = get_config(variant)
  config.dtype = "float64"
  config.loss.diversity_start_epoch = 1
  # The fixture's images are normalised already.
  config.data.pixel_mean, config.data.pixel_std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
  return Config.from_config_dict(config)


def _tensors(state_dict: dict[str, np.ndarray]) -> dict[str, Any]:
  return {name: torch.tensor(array) for name, array in state_dict.items()}


def _fixture_batch() -> Batch:
  images, part_labels, person_id = fixture.batch(height=128, width=64, seed=1)
  keep_mask = ~np.isin(part_labels[:, ::2, ::2], fixture.OCCLUDED_PARTS)
  image = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
  return Batch(
    image=torch.from_numpy(image),
    part_labels=torch.from_numpy(part_labels.astype(np.uint8)),
    keep_mask=torch.from_numpy(keep_mask.astype(np.uint8)),
    person_id=torch.from_numpy(person_id),
  )


@pytest.mark.slow
def test_embedding_is_the_references():
  assert_close(compute().embedding, golden("small")["eval_embedding"], RTOL, "eval_embedding")


@pytest.mark.slow
def test_features_and_logits_are_the_references():
  names = {
    "global_features": "global_feat",
    "global_logits": "global_logits",
    "adversarial_features": "sab_feat",
    "adversarial_logits": "sab_logits",
    "fusion_features": "fusion_feat",
    "fusion_logits": "fusion_logits",
    "part_features": "part_feat",
    "part_logits": "part_logits",
    "segmentation_logits": "seg_logits",
  }
  for name, their_name in names.items():
    assert_close(compute().outputs[name], golden("small")[their_name], RTOL, name)


@pytest.mark.slow
@pytest.mark.parametrize("update", [0, 1, 2])
def test_losses_before_each_update_are_the_references(update: int):
  for their_name, name in LOSS_NAMES.items():
    expected = golden("small")[f"loss{update}/{their_name}"]
    np.testing.assert_allclose(compute().losses[update][name], expected, rtol=RTOL, err_msg=name)


@pytest.mark.slow
def test_gradient_norms_are_the_references():
  expected = _golden_group("gradnorm/")
  assert sorted(compute().gradients) == sorted(expected)
  for name, norm in expected.items():
    # Two true gradients are zero, a bias before BatchNorm; all others are above 1e-3.
    np.testing.assert_allclose(
      np.linalg.norm(compute().gradients[name]), norm, GRADIENT_RTOL, atol=1e-9, err_msg=name
    )


@pytest.mark.slow
def test_running_statistics_are_the_references():
  expected = _golden_group("stats1/")
  statistics = compute().statistics
  assert {name for name in statistics if "running" in name} == set(expected)
  for name, mean_and_std in expected.items():
    ours = [statistics[name].mean(), statistics[name].std(ddof=1)]
    np.testing.assert_allclose(ours, mean_and_std, rtol=RTOL, err_msg=name)


@pytest.mark.slow
def test_embedding_after_three_updates_is_the_references():
  expected = golden("small")["eval_embedding_after3"]
  assert_close(compute().embedding_after3, expected, AFTER3_RTOL, "after 3 updates")


def _golden_group(prefix: str) -> dict[str, np.ndarray]:
  numbers = golden("small")
  return {key.removeprefix(prefix): numbers[key] for key in numbers if key.startswith(prefix)}


def _corner(batch: Batch) -> Batch:
  """Returns the upper left 64 × 32 pixels, which are cheaper."""
  return batch._replace(
    image=batch.image[:, :64, :32],
    part_labels=batch.part_labels[:, :8, :4],
    keep_mask=batch.keep_mask[:, :4, :2],
  )


@pytest.mark.slow
def test_paper_variant_on_resnet18_has_the_losses_of_our_network(float64: None):
  config = _config("small,paper")
  batch = _corner(_fixture_batch())
  twin = Twin(config, 767, FLOAT64)
  trainer = train_step.create_trainer(config, 767, 1, mesh_lib.data_mesh(jax.devices()[:1]))
  shapes = trainer.init.eval_shape(0)
  state_dict = {name: value.numpy() for name, value in twin.network.state_dict().items()}
  params, batch_stats = jax.device_put(
    load_state_dict(state_dict, shapes.params, shapes.batch_stats)
  )

  @jax.jit
  def losses(batch: Batch) -> train_step.LossTerms:
    output, _ = trainer.network.apply(
      params, batch_stats, batch.image, batch.part_labels, batch.keep_mask, train=True
    )
    return train_step.total_loss(output, batch, config.loss, True)

  ours = losses(jax.tree.map(np.asarray, batch))._asdict()
  theirs = twin.backward(batch)
  assert sorted(theirs) == sorted(ours)
  for name, value in theirs.items():
    np.testing.assert_allclose(value.numpy(), ours[name], rtol=1e-8, err_msg=name)


def _small_twin(**options: Any) -> Twin:
  torch.manual_seed(0)
  return Twin(_config("small"), 767, Options(**options))


@pytest.mark.slow
def test_fused_adam_changes_no_number():
  batch = _corner(_fixture_batch())
  plain, fast = (_small_twin(dtype=torch.float64, fused_adam=on) for on in (False, True))
  plain.step(batch)
  fast.step(batch)
  torch.testing.assert_close(fast.step(batch), plain.step(batch), rtol=1e-6, atol=1e-9)


def test_channels_last_keeps_the_layout_and_the_losses():
  batch = _corner(_fixture_batch())
  batch = batch._replace(image=batch.image.float())
  plain, fast = (_small_twin(channels_last=on) for on in (False, True))
  layouts = []
  fast.network.base.model.layer4.register_forward_hook(
    lambda *call: layouts.append(call[-1].is_contiguous(memory_format=torch.channels_last))
  )
  torch.testing.assert_close(fast.step(batch), plain.step(batch), rtol=1e-4, atol=1e-6)
  assert layouts == [True]


def test_autocast_computes_in_bfloat16_and_keeps_losses_in_float32():
  batch = _corner(_fixture_batch())
  batch = batch._replace(image=batch.image.float())
  plain, fast = (_small_twin(bfloat16_autocast=on).backward(batch) for on in (False, True))
  assert {value.dtype for value in fast.values()} == {torch.float32}
  names = ("fusion_triplet", "diversity", "segmentation")
  errors = {name: abs(fast[name] / plain[name] - 1).item() for name in names}
  # Float32 alone would stay below 1e-6; one loss may be as exact by chance.
  assert 1e-5 < max(errors.values()) < 0.05, errors


def test_part_pooling_of_zeros_and_absent_parts():
  labels = torch.zeros(1, 2, 2, dtype=torch.uint8)
  labels[0, 1, 1] = 3
  # Part 3 is all zero; what comes before it is larger.
  features = torch.tensor([[[[5.0, 2.0], [1.0, 0.0]]]], requires_grad=True)
  pooled = part_max_pool(features, labels)
  assert pooled[0, :, 0].tolist() == [5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
  pooled.sum().backward()
  assert features.grad[0, 0].tolist() == [[1.0, 0.0], [0.0, 1.0]]
