"""One number that tells a network's weights apart from all others."""

import hashlib

import jax
import numpy as np

from magnifier_jax.train_state import Tree


def weights_sha256(params: Tree, batch_stats: Tree) -> str:
  """Returns the SHA-256 of all weights, the same on every platform and device count.

  Names, shapes, dtypes and values count; the order in which a tree was built does not.

  Args:
    params: parameters, nested dicts of arrays.
    batch_stats: running statistics of BatchNorm, likewise.

  Returns:
    64 hexadecimal digits.
  """
  digest = hashlib.sha256()
  leaves = jax.tree_util.tree_leaves_with_path({"params": params, "batch_stats": batch_stats})
  named = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
  for name, array in sorted(named.items()):
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(little_endian).tobytes())
  return digest.hexdigest()
