"""Embeds the queries with one thing after the other hidden, and ranks the gallery for them."""

import itertools
from collections.abc import Callable, Mapping

import numpy as np

from magnifier_jax.body_parts import PART_NAMES
from magnifier_jax.config import Config, EvaluationConfig
from magnifier_jax.data.image_files import decode_part_labels
from magnifier_jax.embed_dataset import Batches, DatasetEmbedder, TestEmbeddings
from magnifier_jax.evaluation.embedding import Embeddings
from magnifier_jax.evaluation.identities import EvaluationError
from magnifier_jax.evaluation.occlusion_results import (
  Accuracies,
  Hidden,
  OcclusionResults,
  accuracies,
)
from magnifier_jax.query_occlusion.hiding import bottom_mask, fill_images, other_rows, part_mask
from magnifier_jax.train_state import Tree
from magnifier_jax.workdir.metrics_log import Progress, say

_Mask = Callable[[np.ndarray, tuple[int, int]], np.ndarray]  # rows [B], size → [B, H, W] bool


def check_occlusion(config: Config) -> None:
  """Checks that a network can find the parts that are to be hidden, before anything is embedded.

  Raises:
    EvaluationError: when it cannot.
  """
  evaluation, model = config.evaluation, config.model
  predicts = evaluation.occlude != "none" and evaluation.occlude_mask == "predicted"
  if predicts and not model.part_segmentation:
    raise EvaluationError(
      "config.evaluation.occlude_mask: the network has no part segmentation head, so it cannot "
      "find the parts; set it to 'given', for queries with part labels"
    )


def measure_occlusion(
  config: EvaluationConfig,
  embedder: DatasetEmbedder,
  params: Tree,
  batch_stats: Tree,
  embeddings: TestEmbeddings,
) -> OcclusionResults:
  """Measures how well queries are found of which something is hidden.

  Args:
    config: says what is hidden, by which masks, and what is seen in its place; `check_occlusion`
      has passed.
    embedder: of the data set.
    params: of the network.
    batch_stats: of the network.
    embeddings: of the whole images.

  Raises:
    EvaluationError: when the parts are not known, or there is no other query to take patches of.
  """
  if config.occlude_fill == "patch" and len(embedder.dataset.query) < 2:
    raise EvaluationError(
      "config.evaluation.occlude_fill=patch: there is one query, and no other to take patches of"
    )
  masks = _masks(config, embedder, params, batch_stats)
  progress = Progress(len(masks))
  found = {}
  for done, (name, mask) in enumerate(masks.items()):
    say(f"occluded queries: {name} ({done + 1} of {len(masks)}), {progress.left()} left")
    hiding = _Hiding(config, embedder, mask)
    queries = embedder.changed_queries(params, batch_stats, hiding.change)
    found[name] = Hidden(hiding.share, _ranked(embedder, queries, embeddings.gallery))
    progress.update(done + 1)
  return OcclusionResults(
    config.occlude_mask,
    config.occlude_fill,
    config.occlude_seed,
    _ranked(embedder, embeddings.query, embeddings.gallery),
    {name: hidden for name, hidden in found.items() if isinstance(name, str)},
    {name: hidden for name, hidden in found.items() if not isinstance(name, str)},
  )


def _masks(
  config: EvaluationConfig, embedder: DatasetEmbedder, params: Tree, batch_stats: Tree
) -> Mapping[str | float, _Mask]:
  """Returns what is hidden: {name of a part, or share from the bottom: where that is}."""
  if config.occlude_mask == "predicted":
    parts_of = _predicted_parts(embedder, params, batch_stats)
  else:
    parts_of = _given_parts(embedder)

  def of_part(part: int) -> _Mask:
    return lambda rows, size_hw: np.concatenate(
      [part_mask(parts_of(int(row))[None], part, size_hw) for row in rows]
    )

  def of_bottom(share: float) -> _Mask:
    return lambda rows, size_hw: bottom_mask(len(rows), share, size_hw)

  by_part = {PART_NAMES[part]: of_part(part) for part in config.occluded_parts}
  return by_part | {share: of_bottom(share) for share in config.occlude_bottom}


def _predicted_parts(
  embedder: DatasetEmbedder, params: Tree, batch_stats: Tree
) -> Callable[[int], np.ndarray]:
  """Returns the parts of a query, [h, w], by its row; of some query for the row −1 of padding."""
  parts = embedder.predicted_query_parts(params, batch_stats, True)
  return lambda row: parts[row]


def _given_parts(embedder: DatasetEmbedder) -> Callable[[int], np.ndarray]:
  """Returns the same by the part labels, which are decoded as they are needed."""
  query = embedder.dataset.query

  def labels(row: int) -> np.ndarray:
    return decode_part_labels(query.encoded(max(0, row)).part_labels)

  if not any(labels(row).any() for row in range(len(query))):
    raise EvaluationError(
      f"config.evaluation.occlude_mask=given: no query of {embedder.dataset.name} has part labels; "
      "make them with magnifier_jax.tools.label_parts --splits=query, or set it to 'predicted'"
    )
  return labels


class _Hiding:
  """Hides one thing in batches of queries, and counts its pixels."""

  def __init__(self, config: EvaluationConfig, embedder: DatasetEmbedder, mask: _Mask):
    self._config, self._embedder, self._mask = config, embedder, mask
    self._hidden = self._pixels = 0

  @property
  def share(self) -> float:
    """The share of the pixels that was hidden so far, of this process's queries."""
    return self._hidden / max(self._pixels, 1)

  def change(self, batches: Batches) -> Batches:
    """Yields the batches with the thing hidden."""
    for batch, others in zip(batches, self._others(), strict=False):
      hidden = self._mask(batch.index, batch.image.shape[1:3])
      seen = fill_images(
        batch.image, batch.index, others, self._config.occlude_fill, self._config.occlude_seed
      )
      queries = batch.mask != 0
      self._hidden += np.count_nonzero(hidden[queries])
      self._pixels += hidden[queries].size
      yield batch._replace(image=np.where(hidden[..., None], seen, batch.image))

  def _others(self) -> Batches:
    """Returns the images whose pixels are seen; Nones where none are needed."""
    if self._config.occlude_fill != "patch":
      return itertools.repeat(None)
    query = self._embedder.dataset.query
    rows = other_rows(len(query), self._config.occlude_seed)
    return (batch.image for batch in self._embedder.query_batches(query.take("query", rows)))


def _ranked(embedder: DatasetEmbedder, query: Embeddings, gallery: Embeddings) -> Accuracies:
  """Returns the accuracies of the whole embedding and, of several, of each branch."""
  sides = {"all": (query.whole(), gallery.whole())}
  if len(query.branches) > 1:
    sides |= {branch: (query.branch(branch), gallery.branch(branch)) for branch in query.branches}
  return accuracies({row: embedder.protocol.evaluate(*vectors) for row, vectors in sides.items()})
