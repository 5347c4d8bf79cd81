"""Squared Euclidean distances of L2-normalised embeddings, a block of queries at a time."""

import concurrent.futures
from collections.abc import Iterator

import numpy as np

from magnifier_jax.evaluation.identities import EvaluationError

MAX_DISTANCE = 4  # of two unit vectors, squared

# 1e-3 lets float32 rounding of any normalisation pass and stops bfloat16 or forgotten ones.
_SQUARED_NORM_TOLERANCE = 1e-3
_BLOCK_BYTES = 2**26
_MIN_BLOCK_SIZE = 64  # fewer rows leave the matrix product waiting for memory
_MAX_BLOCK_SIZE = 1024
_GROUP_SIZE = 16  # columns whose minimum stands for them in a search for the smallest
_SLICE_ELEMENTS = 2**18  # 1 MB of float32 stays in a core's cache


def check_embeddings(query_embeddings: np.ndarray, gallery_embeddings: np.ndarray) -> None:
  """Checks that both matrices are L2-normalised, finite and of one width.

  Args:
    query_embeddings: [Q, D].
    gallery_embeddings: [G, D].

  Raises:
    EvaluationError: naming the matrix and its first bad row.
  """
  _check_matrix(query_embeddings, "query_embeddings")
  _check_matrix(gallery_embeddings, "gallery_embeddings")
  widths = query_embeddings.shape[1], gallery_embeddings.shape[1]
  if widths[0] != widths[1]:
    raise EvaluationError(
      f"query_embeddings are {widths[0]} wide and gallery_embeddings {widths[1]}: "
      "embed both with the same network"
    )


def _check_matrix(embeddings: np.ndarray, name: str) -> None:
  if embeddings.ndim != 2:
    raise EvaluationError(f"{name}: must be [images, dimensions], got shape {embeddings.shape}")
  squared_norms = np.einsum("nd,nd->n", embeddings, embeddings)
  not_finite = np.flatnonzero(~np.isfinite(squared_norms))
  if len(not_finite):
    raise EvaluationError(
      f"{name}: {len(not_finite)} of {len(embeddings)} rows hold NaN or infinite values, "
      f"the first is row {not_finite[0]}"
    )
  wrong = np.flatnonzero(np.abs(squared_norms - 1) > _SQUARED_NORM_TOLERANCE)
  if len(wrong):
    raise EvaluationError(
      f"{name}: rows must be L2-normalised, but row {wrong[0]} has norm "
      f"{np.sqrt(squared_norms[wrong[0]]):.4g}; divide each row by its norm"
    )


def default_block_size(num_gallery: int) -> int:
  """Returns how many queries to take at once, so that a block is about 64 MB."""
  return int(np.clip(_BLOCK_BYTES // (4 * num_gallery), _MIN_BLOCK_SIZE, _MAX_BLOCK_SIZE))


def distance_blocks(
  query_embeddings: np.ndarray, gallery_embeddings: np.ndarray, block_size: int | None = None
) -> Iterator[np.ndarray]:
  """Yields 2 − 2·q·g, clipped to 0…4, for one block of queries after the other, on the CPU.

  Args:
    query_embeddings: [Q, D] float32, L2-normalised.
    gallery_embeddings: [G, D] float32, L2-normalised. It is not copied.
    block_size: queries at a time; None for about 64 MB.

  Yields:
    [block, G] float32. It may be overwritten; its memory is used again later.
  """
  num_queries, num_gallery = len(query_embeddings), len(gallery_embeddings)
  block_size = min(block_size or default_block_size(num_gallery), num_queries)
  buffers = np.empty((2, block_size, num_gallery), np.float32)

  def compute(start: int) -> np.ndarray:
    queries = query_embeddings[start : start + block_size]
    block = buffers[start // block_size % 2, : len(queries)]
    return _squared_distances(queries, gallery_embeddings, block)

  with concurrent.futures.ThreadPoolExecutor(1) as worker:
    coming = worker.submit(compute, 0)
    for start in range(block_size, num_queries + block_size, block_size):
      block = coming.result()
      if start < num_queries:
        coming = worker.submit(compute, start)  # while the caller has this one
      yield block


def _squared_distances(
  queries: np.ndarray, gallery_embeddings: np.ndarray, block: np.ndarray
) -> np.ndarray:
  """Fills and returns `block`, [queries, G]."""
  np.matmul(queries * np.float32(-2), gallery_embeddings.T, out=block)
  for part in row_slices(block):
    part += np.float32(2)
    np.clip(part, 0, MAX_DISTANCE, out=part)
  return block


def row_slices(block: np.ndarray) -> Iterator[np.ndarray]:
  """Yields views of a few rows each, small enough for a core's cache."""
  step = max(1, _SLICE_ELEMENTS // block.shape[1])
  for start in range(0, len(block), step):
    yield block[start : start + step]


def smallest(block: np.ndarray, k: int) -> np.ndarray:
  """Returns the columns of each row's k smallest values, nearest first, ties by column.

  Args:
    block: [rows, columns], free of NaN.
    k: at most the number of columns.

  Returns:
    [rows, k] int64.
  """
  bound = _upper_bound(block, k)
  # Ten times faster than nonzero of a matrix.
  rows, columns = np.divmod(np.flatnonzero(block <= bound[:, None]), block.shape[1])
  # Rows and columns ascend already, so a stable sort by value, then by row, keeps ties in order.
  order = np.argsort(block[rows, columns], kind="stable")
  order = order[np.argsort(rows[order], kind="stable")]
  rows, columns = rows[order], columns[order]
  place = np.arange(len(rows)) - np.searchsorted(rows, rows)
  return columns[place < k].reshape(len(block), k)


def _upper_bound(block: np.ndarray, k: int) -> np.ndarray:
  """Returns what at least k values of each row are not above, [rows], close to the k-th smallest.

  The k-th smallest of the minima of groups of columns: taking minima is many times quicker than
  partitioning all of the columns.
  """
  width = block.shape[1] // _GROUP_SIZE
  if width < k:
    return np.partition(block, k - 1, axis=1)[:, k - 1]
  grouped = block[:, : width * _GROUP_SIZE].reshape(len(block), _GROUP_SIZE, width)
  return np.partition(grouped.min(axis=1), k - 1, axis=1)[:, k - 1]
