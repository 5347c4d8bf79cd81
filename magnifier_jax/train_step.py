"""One update of the training state: losses, gradient, optimiser, under jit on a mesh."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from magnifier_jax import losses
from magnifier_jax.config import Config, LossConfig
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.devices.host_memory import release_freed_memory
from magnifier_jax.models.cpu.computation_order import all_not_before
from magnifier_jax.models.magnifier_net import MagnifierNetOutput
from magnifier_jax.models.network import Network, create_network
from magnifier_jax.models.parts import resize_nearest
from magnifier_jax.models.platforms import cpu_or_default
from magnifier_jax.optimizer import adam_with_l2, averaged, learning_rate_schedule
from magnifier_jax.train_state import Batch, TrainState, Tree, Weights


class LossTerms(NamedTuple):
  """Every loss, unweighted, and their weighted total; None where its branch is off."""

  total: jax.Array
  global_id: jax.Array | None = None
  global_triplet: jax.Array | None = None
  adversarial_id: jax.Array | None = None
  adversarial_triplet: jax.Array | None = None
  adversarial_beta: jax.Array | None = None
  fusion_id: jax.Array | None = None
  fusion_triplet: jax.Array | None = None
  part_id: jax.Array | None = None  # [S]
  part_beta: jax.Array | None = None  # [S]
  diversity: jax.Array | None = None
  segmentation: jax.Array | None = None


class StepMetrics(NamedTuple):
  """What an update reports."""

  losses: LossTerms
  grad_norm: jax.Array  # scalar, L2 norm over all parameters, before the L2 term


class Trainer(NamedTuple):
  """The compiled functions of one run."""

  network: Network
  init: jax.stages.Wrapped  # seed → replicated state
  start: Callable[[Tree, Tree], TrainState]  # params, batch_stats → the state of no update
  step: Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]  # donates the state
  schedule: optax.Schedule


def create_trainer(config: Config, num_people: int, steps_per_epoch: int, mesh: Mesh) -> Trainer:
  """Builds the initialisation and the update of a run.

  Args:
    config: of the run.
    num_people: N, identities of the training set.
    steps_per_epoch: for the schedules that count in epochs.
    mesh: the batch is sharded over its `data` axis, the state is on every device.
  """
  network, init_network = create_network(config, num_people)
  schedule = learning_rate_schedule(config.optimizer, steps_per_epoch, config.training.num_epochs)
  tx = adam_with_l2(schedule, config.optimizer.weight_decay)
  diversity_start = (config.loss.diversity_start_epoch - 1) * steps_per_epoch
  decay = config.optimizer.ema_decay

  def start(params: Tree, batch_stats: Tree) -> TrainState:
    # An array of its own for each: a step is given both to write over.
    average = jax.tree.map(jnp.copy, Weights(params, batch_stats)) if decay else None
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, batch_stats, tx.init(params), average)

  def init(seed: int) -> TrainState:
    return start(*init_network(jax.random.key(seed)))

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
    diversity_on = state.step >= diversity_start

    def loss_function(params: Tree) -> tuple[jax.Array, tuple[LossTerms, Tree]]:
      output, batch_stats = network.apply(
        params,
        state.batch_stats,
        batch.image,
        batch.part_labels,
        batch.keep_mask,
        train=True,
      )
      terms = total_loss(output, batch, config.loss, diversity_on)
      return terms.total, (terms, batch_stats)

    grads, (terms, batch_stats) = jax.grad(loss_function, has_aux=True)(state.params)
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    updates = cpu_or_default(grad_norm, updates, cpu=all_not_before, default=lambda _, tree: tree)
    params = optax.apply_updates(state.params, updates)
    average = None
    if decay:
      average = averaged(state.average, Weights(params, batch_stats), state.step + 1, decay)
    metrics = StepMetrics(terms, grad_norm)
    return TrainState(state.step + 1, params, batch_stats, opt_state, average), metrics

  on_all, over_batch = mesh_lib.replicated(mesh), mesh_lib.batch_sharding(mesh)
  return Trainer(
    network=network,
    init=jax.jit(init, out_shardings=on_all, compiler_options=mesh_lib.options_to_run_once(mesh)),
    start=start,
    step=jax.jit(
      step,
      in_shardings=(on_all, over_batch),
      out_shardings=on_all,
      donate_argnums=0,
      compiler_options=mesh_lib.compiler_options(mesh, network.dtype, train=True),
    ),
    schedule=schedule,
  )


def draw_state(trainer: Trainer, seed: int) -> TrainState:
  """Returns a run's first state, and gives back the memory of the program that drew it.

  It runs once: for a ResNet-50, 80 MB of program and 390 MB that compiling it had freed.
  """
  state = trainer.init(seed)
  trainer.init.clear_cache()
  release_freed_memory()
  return state


def compile_step(
  trainer: Trainer, state: TrainState, batch: Batch
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
  """Compiles `trainer.step` for arguments like these, and gives back the memory that this took.

  The C library would keep it for as long as the run lasts: a sixth of a full-size step's peak at
  batch 8 on a CPU.
  """
  compiled = trainer.step.lower(state, batch).compile()
  release_freed_memory()
  return compiled


def total_loss(
  output: MagnifierNetOutput, batch: Batch, config: LossConfig, diversity_on: jax.Array | bool
) -> LossTerms:
  """Computes every loss and the weighted total.

  global·(ID + triplet) + segmentation·L + adversarial·β·(ID [+ triplet]) + part·Σ βᵢ IDᵢ
  + fusion·(ID + triplet) + diversity·L. No gradient passes through β and βᵢ, which come from masks.

  Args:
    output: of the network in training.
    batch: with `person_id` [B] and `part_labels` [B, H/8, W/8].
    config: weights and parameters.
    diversity_on: whether the diversity loss counts in the total at this step.
  """
  terms: dict[str, jax.Array] = {}
  total = 0.0

  def id_loss(logits: jax.Array) -> jax.Array:
    return losses.id_loss(logits, batch.person_id, config.label_smoothing)

  def triplet_loss(features: jax.Array) -> jax.Array:
    return losses.batch_hard_triplet_loss(features, batch.person_id, config.triplet_margin)

  if (branch := output.global_branch) is not None:
    terms["global_id"] = id_loss(branch.logits)
    terms["global_triplet"] = triplet_loss(branch.features)
    total += config.global_weight * (terms["global_id"] + terms["global_triplet"])
  if (branch := output.adversarial_branch) is not None:
    terms["adversarial_id"] = weighted = id_loss(branch.logits)
    terms["adversarial_beta"] = branch.beta
    if config.adversarial_triplet:
      terms["adversarial_triplet"] = triplet_loss(branch.features)
      weighted += terms["adversarial_triplet"]
    total += config.adversarial_weight * branch.beta * weighted
  if (branch := output.fusion_branch) is not None:
    terms["fusion_id"] = id_loss(branch.logits)
    terms["fusion_triplet"] = triplet_loss(branch.features)
    terms["part_id"] = id_loss(branch.part_logits)
    terms["part_beta"] = branch.part_beta
    terms["diversity"] = losses.semantic_diversity_loss(branch.part_features)
    total += config.fusion_weight * (terms["fusion_id"] + terms["fusion_triplet"])
    total += config.part_id_weight * (branch.part_beta * terms["part_id"]).sum()
    total += config.diversity_weight * jnp.where(diversity_on, terms["diversity"], 0.0)
  if (logits := output.segmentation_logits) is not None:
    labels = resize_nearest(batch.part_labels, *logits.shape[1:3])
    terms["segmentation"] = losses.part_segmentation_loss(logits, labels)
    total += config.segmentation_weight * terms["segmentation"]
  return LossTerms(total, **terms)
