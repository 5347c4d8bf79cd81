"""What a training step maps to what: the state of a run, and a batch.

The step, the checkpoints and the input share them. The input runs where JAX is not wanted, so JAX
is not imported here.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
  import jax
  import numpy as np
  import optax

  Array = jax.Array | np.ndarray

Tree = dict[str, Any]  # nested; the leaves are arrays


class Weights(NamedTuple):
  """What a network consists of, apart from its structure: plain nested dicts of arrays."""

  params: Tree
  batch_stats: Tree  # running statistics of BatchNorm


class TrainState(NamedTuple):
  """All that an update changes: plain nested dicts of arrays."""

  step: "jax.Array"  # [] int32, updates done
  params: Tree
  batch_stats: Tree
  opt_state: "optax.OptState"
  average: Weights | None = None  # of the weights so far; None where `ema_decay` is off

  @property
  def weights(self) -> Weights:
    """Those of the network that is evaluated and used: the average where there is one."""
    return Weights(self.params, self.batch_stats) if self.average is None else self.average

  def stored(self) -> dict[str, Any]:
    """Returns what a checkpoint holds, by name; an average only where there is one."""
    return {name: value for name, value in self._asdict().items() if value is not None}


class Batch(NamedTuple):
  """A training batch: the whole on devices, or one process's rows of it in numpy.

  Build it by name: the fields have the same leading axis, and some the same type.
  """

  image: "Array"  # [B, H, W, 3] uint8, RGB
  part_labels: "Array"  # [B, H/8, W/8] uint8, numbers of `body_parts`
  keep_mask: "Array"  # [B, H/16, W/16] uint8, 0 where an occluded part lies
  person_id: "Array"  # [B] int32 in 0…N−1
