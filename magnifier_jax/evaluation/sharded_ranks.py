"""The rank of every match by accelerators: the gallery is sharded over the devices of a mesh.

Each device multiplies the query block with its gallery rows in tiles of one fixed shape, so that
an element is rounded alike, and ties are ties, whatever the number of devices.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from magnifier_jax.evaluation.distances import MAX_DISTANCE, default_block_size
from magnifier_jax.evaluation.identities import JUNK_PERSON_ID, Identities, PersonIndex
from magnifier_jax.evaluation.match_ranks import BINS_PER_UNIT, NUM_BINS, BlockRanks, bin_counts

_AXIS = "data"
_TILE_ROWS = 1024


class _Rows(NamedTuple):
  """Embeddings and identities of the gallery, or of a block of queries; padding is junk."""

  embeddings: jax.Array  # [rows, D] float32
  person_id: jax.Array  # [rows] int32
  camera_id: jax.Array  # [rows] int32


class _DeviceRanks(NamedTuple):
  """What comes back from the devices; entries of missing matches are meaningless."""

  distance: jax.Array  # [block, slots] float32
  rank: jax.Array  # [block, slots] int32
  counts: jax.Array  # [NUM_BINS] int32


def rank_blocks_on_mesh(
  query_embeddings: np.ndarray,
  gallery_embeddings: np.ndarray,
  index: PersonIndex,
  mesh: Mesh,
  block_size: int | None = None,
) -> Iterator[tuple[int, BlockRanks]]:
  """Yields the number of queries and the ranks of one block of queries after the other.

  Args:
    query_embeddings: [Q, D] float32, L2-normalised.
    gallery_embeddings: [G, D] float32, L2-normalised; the devices share a copy.
    index: identities of both.
    mesh: with the one axis `data`.
    block_size: queries at a time; None for about 64 MB of distances over all devices.
  """
  num_queries = index.num_queries
  block_size = min(block_size or default_block_size(index.num_gallery), num_queries)
  gallery = _put_gallery(gallery_embeddings, index.gallery, mesh)
  rank_block = _block_ranker(mesh)
  for start in range(0, num_queries, block_size):
    stop = min(start + block_size, num_queries)
    rows = slice(start, stop)
    identities = Identities(*(ids[rows] for ids in index.query))
    queries = _put_queries(query_embeddings[rows], identities, block_size, mesh)
    columns, slot = _match_slots(index, start, stop, block_size)
    num_slots = np.int32(slot.max(initial=-1) + 1)
    result = rank_block(queries, gallery, _replicate(columns, mesh), num_slots)
    query_row = index.matches(start, stop).query_row
    yield stop - start, _to_block_ranks(result, query_row, slot)


def _to_block_ranks(result: _DeviceRanks, query_row: np.ndarray, slot: np.ndarray) -> BlockRanks:
  genuine_counts = bin_counts(np.asarray(result.distance)[query_row, slot])
  ranks = np.asarray(result.rank)[query_row, slot].astype(np.int64)
  counts = np.asarray(result.counts).astype(np.int64)
  return BlockRanks(query_row, ranks, genuine_counts, counts - genuine_counts)


def _match_slots(
  index: PersonIndex, start: int, stop: int, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Lists each query's matches side by side.

  Returns:
    [block_size, slots] int32 gallery rows, −1 where there is none, and the slot of each match.
  """
  query_row, gallery_row = index.matches(start, stop)
  matches = np.bincount(query_row, minlength=stop - start)
  slot = np.arange(len(query_row)) - (np.cumsum(matches) - matches)[query_row]
  columns = np.full((block_size, max(1, index.max_same_person)), -1, np.int32)
  columns[query_row, slot] = gallery_row
  return columns, slot


def _replicate(array: np.ndarray, mesh: Mesh) -> jax.Array:
  sharding = NamedSharding(mesh, PartitionSpec())
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _put_queries(
  embeddings: np.ndarray, identities: Identities, block_size: int, mesh: Mesh
) -> _Rows:
  rows = (embeddings, identities.person_id, identities.camera_id)
  padded = (_pad(array, 0, block_size) for array in rows)
  return _Rows(*(_replicate(array, mesh) for array in padded))


def _put_gallery(embeddings: np.ndarray, identities: Identities, mesh: Mesh) -> _Rows:
  """Shards the gallery, each device with a whole number of tiles."""
  rows_per_round = _TILE_ROWS * mesh.size
  num_rows = -(-len(embeddings) // rows_per_round) * rows_per_round
  sharding = NamedSharding(mesh, PartitionSpec(_AXIS))

  def put(array: np.ndarray) -> jax.Array:
    def shard(index: tuple[slice, ...]) -> np.ndarray:
      start, stop, _ = index[0].indices(num_rows)
      return _pad(array, start, stop)

    return jax.make_array_from_callback((num_rows, *array.shape[1:]), sharding, shard)

  return _Rows(put(embeddings), put(identities.person_id), put(identities.camera_id))


def _pad(array: np.ndarray, start: int, stop: int) -> np.ndarray:
  """Returns rows `start` to `stop`; those past the end are junk."""
  rows = array[start:stop]
  missing = stop - start - len(rows)
  padding = np.full((missing, *array.shape[1:]), JUNK_PERSON_ID, array.dtype)
  return np.concatenate([rows, padding]) if missing else rows


@functools.cache
def _block_ranker(mesh: Mesh) -> Callable[[_Rows, _Rows, jax.Array, np.int32], _DeviceRanks]:
  """Compiles the ranking of a block of queries; the cache spares later evaluations that."""
  everywhere = PartitionSpec()
  ranker = jax.shard_map(
    _rank_shard,
    mesh=mesh,
    in_specs=(everywhere, PartitionSpec(_AXIS), everywhere, everywhere),
    out_specs=everywhere,
    check_vma=False,  # the loop over slots sums device by device, and only then over devices
  )
  return jax.jit(ranker)


def _rank_shard(
  queries: _Rows, gallery: _Rows, match_columns: jax.Array, num_slots: jax.Array
) -> _DeviceRanks:
  """Ranks the matches among one device's gallery rows, then adds up over the devices."""
  distances = _valid_distances(queries, gallery)
  num_rows = gallery.person_id.size
  columns = match_columns - lax.axis_index(_AXIS) * num_rows
  match_distance = lax.psum(_take(distances, columns), _AXIS)
  tile_columns = jnp.arange(num_rows, dtype=jnp.int32).reshape(-1, 1, _TILE_ROWS)

  def count_slot(slot: jax.Array, ranks: jax.Array) -> jax.Array:
    distance = match_distance[None, :, slot, None]
    column = columns[None, :, slot, None]
    before = (distances < distance) | ((distances == distance) & (tile_columns < column))
    return ranks.at[:, slot].add(jnp.sum(before, axis=(0, 2), dtype=jnp.int32))

  before = lax.fori_loop(0, num_slots, count_slot, jnp.zeros_like(match_columns))
  return _DeviceRanks(
    match_distance, lax.psum(before, _AXIS) + 1, lax.psum(_bin_counts(distances), _AXIS)
  )


def _valid_distances(queries: _Rows, gallery: _Rows) -> jax.Array:
  """Returns [tiles, block, tile] distances, infinite where the query ignores the image."""

  def tile_distances(tile: _Rows) -> jax.Array:
    # TPUs and newer GPUs would round the factors to fewer bits by default.
    products = jnp.matmul(-2 * queries.embeddings, tile.embeddings.T, precision="highest")
    distances = jnp.clip(products + 2, 0, MAX_DISTANCE)
    person, camera = queries.person_id[:, None], queries.camera_id[:, None]
    same_person = person == tile.person_id[None, :]
    same_camera = camera == tile.camera_id[None, :]
    junk = (person == JUNK_PERSON_ID) | (tile.person_id[None, :] == JUNK_PERSON_ID)
    return jnp.where(junk | (same_person & same_camera), jnp.inf, distances)

  tiles = jax.tree.map(lambda rows: rows.reshape(-1, _TILE_ROWS, *rows.shape[1:]), gallery)
  return lax.map(tile_distances, tiles)


def _take(distances: jax.Array, columns: jax.Array) -> jax.Array:
  """Returns the distances at [block, slots] columns, 0 where they lie on another device."""
  num_tiles, block_size, tile_rows = distances.shape
  here = (columns >= 0) & (columns < num_tiles * tile_rows)
  columns = jnp.where(here, columns, 0)
  rows = jnp.arange(block_size, dtype=jnp.int32)[:, None]
  return jnp.where(here, distances[columns // tile_rows, rows, columns % tile_rows], 0)


def _bin_counts(distances: jax.Array) -> jax.Array:
  """Counts the distances by bin, [NUM_BINS] int32; infinite ones are not counted."""
  bins = jnp.minimum(distances.ravel() * BINS_PER_UNIT, NUM_BINS).astype(jnp.int32)
  return jnp.zeros(NUM_BINS, jnp.int32).at[bins].add(1, mode="drop")
