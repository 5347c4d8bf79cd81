"""A network's arrays as exporters want them: PyTorch's layouts, BatchNorm as two vectors."""

from typing import NamedTuple

import jax
import numpy as np

from magnifier_jax.models.layers import BatchNorm
from magnifier_jax.train_state import Tree


class Affine(NamedTuple):
  """x ↦ x · scale + offset, for each channel: what BatchNorm computes in evaluation."""

  scale: np.ndarray  # [C] float64
  offset: np.ndarray  # [C] float64


class NetworkArrays(NamedTuple):
  """A module's parameters and running statistics.

  Attributes:
    name: of the module, as `backbone/stage1/block0`.
    params: nested dicts of arrays.
    batch_stats: likewise.
  """

  name: str
  params: Tree
  batch_stats: Tree

  def __contains__(self, name: str) -> bool:
    return name in self.params

  def module(self, name: str) -> "NetworkArrays":
    """Returns the arrays of a module within this one."""
    below = f"{self.name}/{name}" if self.name else name
    return NetworkArrays(below, self.params[name], self.batch_stats.get(name, {}))

  def modules(self, prefix: str) -> list["NetworkArrays"]:
    """Returns the modules `prefix0`, `prefix1`, … within this one."""
    number = sum(name.startswith(prefix) for name in self.params)
    return [self.module(f"{prefix}{i}") for i in range(number)]

  def array(self, name: str) -> np.ndarray:
    """Returns one of this module's own parameters in float64."""
    return np.asarray(self.params[name], np.float64)

  def kernel(self) -> np.ndarray:
    """Returns the kernel of this convolution, [F, C, k, k] float64."""
    if "linear" in self:
      return self.module("linear").array("kernel").T[:, :, None, None]
    return self.array("kernel").transpose(3, 2, 0, 1)

  def affine(self) -> Affine:
    """Returns what this BatchNorm does with its running statistics."""
    mean, var = (np.asarray(self.batch_stats[name], np.float64) for name in ("mean", "var"))
    scale = self.array("scale") / np.sqrt(var + BatchNorm.epsilon)
    return Affine(scale, self.array("bias") - mean * scale)


def network_arrays(params: Tree, batch_stats: Tree) -> NetworkArrays:
  """Returns the arrays of a whole network, on the host."""
  return NetworkArrays("", *jax.device_get((params, batch_stats)))
