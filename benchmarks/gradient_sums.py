"""How far gradients that devices add up in bfloat16 are from those that they add up in float32.

  python -m benchmarks.gradient_sums
  python -m benchmarks.gradient_sums --devices=8,32 --images=128 --steps=1 --backbone=resnet18

In bfloat16 the gradient of a convolution's kernel is one of bfloat16, and so is the sum over the
devices. XLA's CPU compiler adds up in float32 whatever the type, so that devices are imitated: the
gradient of each is kept in float32, then rounded and added up in every order that a collective may
have. As a measure of it, how far the network's own arithmetic in bfloat16 takes the gradient from
float32's. Compared are the gradient and Adam's update of all convolutions' kernels, in training on
four batches of random images.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, traverse_util

from benchmarks.command_line import BACKBONES, list_of, positive, size_argument
from benchmarks.cuhk03_config import NUM_PEOPLE
from benchmarks.reporting import Column, header, line, write_json
from benchmarks.side import Work, draw_batch
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.models import convolution, platforms
from magnifier_jax.train_state import Batch, Tree
from magnifier_jax.train_step import create_trainer, total_loss

_ORDERS = ("exact", "ring", "tree")
_BATCHES = 4  # again and again, so that there is something to learn
_MOMENTS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
_COLUMNS = (
  Column("step", 4, "d"),
  Column("added up", 22),
  Column("gradient %", 10, ".2f"),
  Column("worst kernel %", 14, ".2f"),
  Column("update %", 8, ".2f"),
)
_LEGEND = """
Relative L2 distance from the same gradients added up in float32. exact: rounded before and after;
ring: each device adds its own to a sum that is rounded every time; tree: pairs of sums are."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_by_device(
  x: jax.Array, kernels: jax.Array, stride: int, dtype: jnp.dtype
) -> jax.Array:
  """Convolves with the first of equal kernels [N, k, k, C, F]; device n's gradient is the nth's."""
  return convolution.convolve(x, kernels[0].astype(dtype), stride)


def _forward(x: jax.Array, kernels: jax.Array, stride: int, dtype: jnp.dtype) -> tuple:
  return _convolve_by_device(x, kernels, stride, dtype), (x, kernels)


def _backward(stride: int, dtype: jnp.dtype, saved: tuple, grad: jax.Array) -> tuple:
  x, kernels = saved
  kernel = kernels[0].astype(dtype)
  _, of_x = jax.vjp(lambda x: convolution.convolve(x, kernel, stride), x)

  def of_device(rows: tuple) -> jax.Array:
    images, grads = rows
    _, of_kernel = jax.vjp(lambda k: convolution.convolve(images, k, stride), kernels[0])
    return of_kernel(grads)[0]

  # Products of bfloat16 are exact in float32, in which accelerators add them up on one device.
  rows = (a.astype(kernels.dtype).reshape(len(kernels), -1, *a.shape[1:]) for a in (x, grad))
  return of_x(grad)[0], jax.lax.map(of_device, tuple(rows))


_convolve_by_device.defvjp(_forward, _backward)


def _call(layer: Any, x: jax.Array, sign: jax.Array | None = None) -> jax.Array:
  """Stands in for `Conv` and `Conv1x1`, whose kernels have one copy for each device."""
  if isinstance(layer, convolution.Conv1x1):
    kernels = layer.linear.kernel[...][:, None, None]
  else:
    kernels = layer.kernel[...]
  if sign is not None:
    kernels = kernels * sign.reshape(1, 1, 1, 1, -1)
  return _convolve_by_device(x.astype(layer.dtype), kernels, layer.stride, layer.dtype)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _add_up(parts: jax.Array, devices: int, order: str) -> jax.Array:
  """Adds up gradients [N, …] of more devices than asked for, as so many would in bfloat16."""
  local = _rounded(parts.reshape(devices, -1, *parts.shape[1:]).sum(1))
  if order == "exact":
    return _rounded(local.sum(0))
  if order == "ring":
    zeros = jnp.zeros(parts.shape[1:])
    return jax.lax.scan(lambda total, x: (_rounded(total + x), None), zeros, local)[0]
  while len(local) > 1:
    local = _rounded(local[0::2] + local[1::2])
  return local[0]


def _rounded(x: jax.Array) -> jax.Array:
  return jax.lax.reduce_precision(x, 8, 7)  # bfloat16's exponent and mantissa


class _Training:
  """A network whose convolutions' kernels have one copy for each of the most devices."""

  def __init__(self, arguments: argparse.Namespace):
    self._copies = max(arguments.devices)
    self._work = Work(
      "train_step", "cpu", arguments.images, arguments.size, arguments.backbone, "float32"
    )
    mesh = mesh_lib.data_mesh(jax.devices()[:1])
    networks = {}
    for dtype in ("float32", "bfloat16"):
      config = self._work._replace(dtype=dtype).config()
      trainer = create_trainer(config, NUM_PEOPLE, 1, mesh)
      networks[dtype] = trainer.network
    self._loss_config = config.loss
    state = trainer.init(0)
    self.params, self._stats = state.params, state.batch_stats
    module = networks["float32"].module(self.params, self._stats)
    self._kernels = sorted(_kernel_paths(module))
    convolution.Conv.__call__ = convolution.Conv1x1.__call__ = _call
    self._gradients = {
      dtype: jax.jit(functools.partial(self._gradient, network))
      for dtype, network in networks.items()
    }
    self._tx = optax.adam(config.optimizer.learning_rate)
    self._opt_state = self._tx.init(self.params)

  def _gradient(self, network: Any, params: Tree, stats: Tree, batch: Batch) -> tuple[Tree, Tree]:
    def loss(params: Tree) -> tuple[jax.Array, Tree]:
      output, new_stats = network.apply(
        params, stats, batch.image, batch.part_labels, batch.keep_mask, train=True
      )
      return total_loss(output, batch, self._loss_config, True).total, new_stats

    return jax.grad(loss, has_aux=True)(params)

  def step(self, number: int) -> dict[str, list[jax.Array]]:
    """Updates by float32 sums; returns each device's gradients of the kernels, by dtype."""
    batch = draw_batch(self._work)
    key = jax.random.key(number % _BATCHES)
    image = jax.random.randint(key, batch.image.shape, 0, 256, jnp.uint8)
    batch = batch._replace(image=image)
    copied = {
      path: jnp.broadcast_to(leaf, (self._copies, *leaf.shape)) if path in self._kernels else leaf
      for path, leaf in traverse_util.flatten_dict(self.params).items()
    }
    copied = traverse_util.unflatten_dict(copied)
    found = {}
    for dtype, gradient in self._gradients.items():
      gradients, stats = gradient(copied, self._stats, batch)
      gradients = traverse_util.flatten_dict(gradients)
      found[dtype] = [gradients[path] for path in self._kernels]
    self._stats = stats
    summed = {path: g.sum(0) if path in self._kernels else g for path, g in gradients.items()}
    summed = traverse_util.unflatten_dict(summed)
    updates, self._opt_state = self._tx.update(summed, self._opt_state)
    self.params = optax.apply_updates(self.params, updates)
    return found


def _kernel_paths(module: nnx.Module) -> list[tuple]:
  paths = []
  for path, layer in nnx.iter_modules(module):
    if isinstance(layer, convolution.Conv):
      paths.append((*path, "kernel"))
    elif isinstance(layer, convolution.Conv1x1):
      paths.append((*path, "linear", "kernel"))
  return paths


def _distance(ours: list[jax.Array], theirs: list[jax.Array]) -> float:
  squares = sum(jnp.square(a - b).sum() for a, b in zip(ours, theirs))
  return float(jnp.sqrt(squares / sum(jnp.square(b).sum() for b in theirs)))


def main() -> None:
  """Trains, and prints the distances at each step."""
  arguments = _parser().parse_args()
  platforms.platform_dependent = lambda *arrays, cpu, default: default(*arrays)
  training = _Training(arguments)
  adam, moments, records = optax.scale_by_adam(**_MOMENTS), {}, []
  print(header(_COLUMNS), flush=True)
  for step in range(1, arguments.steps + 1):
    gradients = training.step(step)
    parts = gradients["bfloat16"]
    ways = {"in float32": [part.sum(0) for part in parts]}
    ways["in a float32 network"] = [part.sum(0) for part in gradients["float32"]]
    for devices in arguments.devices:
      for order in _ORDERS:
        ways[f"{devices} devices, {order}"] = [_add_up(part, devices, order) for part in parts]
    updates = {}
    for name, summed in ways.items():
      updates[name], moments[name] = adam.update(summed, moments.get(name, adam.init(summed)))
    truth = ways["in float32"]
    for name, summed in ways.items():
      if name == "in float32":
        continue
      worst = max(_distance([ours], [theirs]) for ours, theirs in zip(summed, truth))
      update = _distance(updates[name], updates["in float32"])
      values = (step, name, 100 * _distance(summed, truth), 100 * worst, 100 * update)
      print(line(_COLUMNS, values), flush=True)
      records.append(dict(zip((column.title for column in _COLUMNS), values)))
  print(_LEGEND)
  if arguments.json:
    write_json(arguments.json, records)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--devices", type=list_of(positive), default=[8, 64, 256], help="powers of two")
  add("--images", type=positive, default=256, help="in a batch, a multiple of --devices")
  add("--steps", type=positive, default=12)
  add("--size", type=size_argument, default=(64, 32), help="height,width")
  add("--backbone", choices=BACKBONES, default="resnet10_narrow")
  add("--json", type=Path, help="also write the numbers there")
  return parser


if __name__ == "__main__":
  main()
