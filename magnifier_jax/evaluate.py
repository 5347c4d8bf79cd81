"""`--mode=evaluate`: a workdir's checkpoint, or saved embeddings → table, metrics.json, report."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from magnifier_jax.config import Config, EvaluationConfig
from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.data.dataset import ReidDataset, ReidSplit
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.embed_dataset import (
  DatasetEmbedder,
  TestEmbeddings,
  identities,
  numbered_images,
)
from magnifier_jax.evaluation.embedding import Embeddings
from magnifier_jax.evaluation.embeddings_file import (
  EmbeddingsFileError,
  IdentifiedEmbeddings,
  SavedEmbeddings,
  load_embeddings,
  save_embeddings,
)
from magnifier_jax.evaluation.metric_names import HEADINGS, PUBLISHED
from magnifier_jax.evaluation.occlusion_results import (
  OCCLUSION,
  OcclusionResults,
  occlusion_table,
)
from magnifier_jax.evaluation.protocol import Protocol, make_protocol
from magnifier_jax.evaluation.ranking import RankingMetrics
from magnifier_jax.evaluation.ranking_file import write_ranking
from magnifier_jax.evaluation.reranking import RerankingOptions
from magnifier_jax.evaluation.thresholds import THRESHOLDS, Thresholds, calibrated
from magnifier_jax.files.user_path import user_path
from magnifier_jax.files.whole_file import make_folder, write_json
from magnifier_jax.query_occlusion.measurement import check_occlusion, measure_occlusion
from magnifier_jax.report.provenance import Provenance, provenance, unknown_provenance
from magnifier_jax.report.published import PublishedTable
from magnifier_jax.report.run_contents import report_data
from magnifier_jax.train_state import Weights
from magnifier_jax.trained_network import TrainedNetwork, open_trained_network
from magnifier_jax.workdir.metrics_log import say
from magnifier_jax.workdir.ownership import check_no_foreign_files
from magnifier_jax.workdir.result_folders import METRICS, results_folder

ALL = "all"
RERANKED = "all, re-ranked"


def evaluate_run(config: Config, workdir: Path) -> Mapping[str, Mapping[str, RankingMetrics]]:
  """Evaluates what a workdir holds and writes `metrics.json` and `report.html`.

  They go into the workdir where the run was trained on the data set, and else into the folder of
  that data set, see `results_folder`.

  Args:
    config: says on which data sets to test, and how; the network is the run's own.
    workdir: of the run. With `config.evaluation.embeddings` it need not hold a checkpoint.

  Returns:
    {data set: {row of the table: metrics}}; the first row is the whole embedding.

  Raises:
    CheckpointError: when there is no checkpoint that is whole.
    EmbeddingsFileError: when the file of embeddings cannot be read.
    ForeignFilesError: when results would be written over files of something else.
    WriteError: when a result cannot be written.
    ConfigError, SourceError, DeviceError: when a data set cannot be opened or embedded.
    EvaluationError: when nothing matches, or parts that are to be hidden cannot be found.
  """
  if config.evaluation.embeddings:
    return _evaluate_saved(config, workdir)
  # All of them first: what is wrong with the last one need not be known after hours.
  datasets = [dataset_lib.load(config.data.of(name)) for name in config.data.datasets]
  trained = open_trained_network(workdir, config.evaluation.checkpoint, config)
  say(f"checkpoint of step {trained.step} in {workdir / 'checkpoints'}")
  _say_whose_network(config, trained.config)
  check_occlusion(trained.config)
  mesh = mesh_lib.data_mesh()
  embedders = [
    DatasetEmbedder(trained.config, dataset, trained.network, mesh) for dataset in datasets
  ]
  return {
    dataset.name: _evaluate_on(trained.config.on(dataset.name), dataset, embedder, trained, workdir)
    for dataset, embedder in zip(datasets, embedders, strict=True)
  }


def _say_whose_network(given: Config, used: Config) -> None:
  """Names what a config says otherwise about the network; the run decides that."""
  about = {
    "model": (given.model, used.model),
    "data.image_size_hw": (given.data.image_size_hw, used.data.image_size_hw),
    "data.pixel_mean": (given.data.pixel_mean, used.data.pixel_mean),
    "data.pixel_std": (given.data.pixel_std, used.data.pixel_std),
  }
  differing = [name for name, (ours, theirs) in about.items() if ours != theirs]
  if differing:
    height, width = used.data.image_size_hw
    say(
      f"note: the network is the run's, {used.model.backbone} at {height} × {width}; "
      f"{', '.join(differing)} of the given config are not used"
    )


def _evaluate_on(
  config: Config,
  dataset: ReidDataset,
  embedder: DatasetEmbedder,
  trained: TrainedNetwork,
  workdir: Path,
) -> Mapping[str, RankingMetrics]:
  """Embeds one data set, and shows what is found."""
  source = provenance(config, trained.record, trained.step, chosen=trained.best)
  say(f"{dataset.name}: {len(dataset.query)} queries and {len(dataset.gallery)} gallery images")
  embeddings = embedder.embeddings(trained.params, trained.batch_stats)
  if config.evaluation.save_embeddings and jax.process_index() == 0:
    path = _folder(source, workdir) / "embeddings.npz"
    images = numbered_images(dataset)
    saved = SavedEmbeddings(
      _identified(dataset.query, embeddings.query, images.query),
      _identified(dataset.gallery, embeddings.gallery, images.gallery),
      json.dumps(source._asdict()),
    )
    save_embeddings(path, saved)
    say(f"embeddings: {path}")
  return publish(config, source, workdir, dataset, embedder, trained, embeddings)


def _folder(source: Provenance, workdir: Path) -> Path:
  """Returns where results go; the folder is there."""
  folder = results_folder(workdir, source.trained_on, source.test_set)
  make_folder(folder)
  return folder


def publish(
  config: Config,
  source: Provenance,
  workdir: Path,
  dataset: ReidDataset,
  embedder: DatasetEmbedder,
  weights: Weights | TrainedNetwork,
  embeddings: TestEmbeddings,
) -> Mapping[str, RankingMetrics]:
  """Ranks embeddings in every way that the config asks for, and shows the results."""
  results = rank(embeddings, embedder.protocol, config.evaluation)
  folder = _folder(source, workdir)
  occlusion = None
  if config.evaluation.occlude != "none":
    occlusion = measure_occlusion(
      config.evaluation, embedder, weights.params, weights.batch_stats, embeddings
    )
  show(source, folder, results, occlusion)
  # Every process takes part in predicting the parts; one writes.
  query_parts = embedder.predicted_query_parts(weights.params, weights.batch_stats)
  data = report_data(source, workdir, dataset, embedder.protocol, embeddings, results, query_parts)
  data = dataclasses.replace(data, occlusion=occlusion)
  if jax.process_index() == 0:
    from magnifier_jax.report.page import write_report  # Matplotlib: not before it is needed

    path = folder / "report.html"
    write_report(path, data)
    say(f"report: {path}")
    query = _identified(dataset.query, embeddings.query)
    gallery = _identified(dataset.gallery, embeddings.gallery)
    _save_ranking(config.evaluation, folder, embedder.protocol, query, gallery)
  return results


def rank(
  embeddings: TestEmbeddings, protocol: Protocol, config: EvaluationConfig
) -> Mapping[str, RankingMetrics]:
  """Returns {row: metrics}: all branches, re-ranked if asked for, and each branch alone."""
  whole = [side.whole() for side in embeddings]
  results = {ALL: protocol.evaluate(*whole)}
  if config.rerank:
    say("re-ranking")
    options = RerankingOptions(config.rerank_k1, config.rerank_k2, config.rerank_lambda)
    results[RERANKED] = protocol.evaluate(*whole, options)
  if len(embeddings.query.branches) > 1:
    for branch in embeddings.query.branches:
      results[branch] = protocol.evaluate(*(side.branch(branch) for side in embeddings))
  return results


def show(
  source: Provenance,
  folder: Path,
  results: Mapping[str, RankingMetrics],
  occlusion: OcclusionResults | None = None,
) -> None:
  """Writes `metrics.json`, then prints the table of results beside the published ones."""
  path = folder / METRICS
  if jax.process_index() == 0:
    rows = {name: metrics.summary() for name, metrics in results.items()}
    found = _thresholds(source, results)
    thresholds = {THRESHOLDS: found.to_json()} if found else {}
    hidden = {OCCLUSION: occlusion.to_json()} if occlusion else {}
    write_json(path, source.head() | rows | thresholds | hidden)
  say("\n" + results_table(results, source.published(), [source.rule(), *source.notes()]))
  if occlusion:
    say("\n" + occlusion_table(occlusion))
  say(f"metrics: {path}")


def _thresholds(source: Provenance, results: Mapping[str, RankingMetrics]) -> Thresholds | None:
  """Returns the thresholds of distances; re-ranked ones are of another unit."""
  branches = {name: metrics for name, metrics in results.items() if name not in (ALL, RERANKED)}
  return calibrated(source.people(), source.flip, results[ALL], branches)


def results_table(
  results: Mapping[str, RankingMetrics], published: PublishedTable, notes: Sequence[str]
) -> str:
  """Returns a text table in percent, the published rows below ours from the weakest to the best.

  Args:
    results: {row: metrics}.
    published: may be empty.
    notes: what must be known about the results, lines between ours and the published ones.
  """
  columns = [name for name in HEADINGS if name != "mAP_trapezoid"]
  width = 2 + max(len(name) for name in (*results, *published.rows))

  def line(name: str, percents: Mapping[str, float]) -> str:
    cells = (f"{percents[c]:9.1f}" if c in percents else f"{'–':>9}" for c in columns)
    return f"{name:<{width}}" + "".join(cells)

  lines = [f"{'%':<{width}}" + "".join(f"{HEADINGS[name]:>9}" for name in columns)]
  for name, metrics in results.items():
    lines.append(line(name, {key: 100 * value for key, value in metrics.summary().items()}))
  first = next(iter(results.values()))
  lines.append(
    f"{first.num_queries} queries; {first.num_skipped_queries} left out, without a match"
  )
  lines += notes
  if published.rows:
    lines.append(f"published ({published.source}):")
  for name, row in sorted(published.rows.items(), key=lambda item: item[1].mAP):
    lines.append(line(name, {metric: getattr(row, metric) for metric in PUBLISHED}))
  return "\n".join(lines)


def _evaluate_saved(config: Config, workdir: Path) -> Mapping[str, Mapping[str, RankingMetrics]]:
  check_no_foreign_files(workdir)
  path = user_path(config.evaluation.embeddings)
  saved = load_embeddings(path)
  query, gallery = saved.query.identities, saved.gallery.identities
  say(f"embeddings of {path}: {len(query.person_id)} queries, {len(gallery.person_id)} in gallery")
  protocol = make_protocol(
    config.evaluation.camera_rule,
    *(query, gallery, saved.images()),
    config.evaluation.single_shot_draws,
  )
  protocol.check()
  embeddings = TestEmbeddings(saved.query.embeddings, saved.gallery.embeddings)
  results = rank(embeddings, protocol, config.evaluation)
  source = _provenance(saved, path) or unknown_provenance(config)
  source = source.ranked_by(config.evaluation)
  folder = _folder(source, workdir)
  show(source, folder, results)
  if jax.process_index() == 0:
    _save_ranking(config.evaluation, folder, protocol, *saved[:2])
  return {source.test_set: results}


def _identified(
  split: ReidSplit, embeddings: Embeddings, image_id: np.ndarray | None = None
) -> IdentifiedEmbeddings:
  return IdentifiedEmbeddings(embeddings, identities(split), split.path, image_id)


def _save_ranking(
  config: EvaluationConfig,
  folder: Path,
  protocol: Protocol,
  query: IdentifiedEmbeddings,
  gallery: IdentifiedEmbeddings,
) -> None:
  """Writes the first gallery images of each query, where the config asks for it."""
  if config.save_ranking:
    path = folder / "ranking.csv"
    write_ranking(path, query, gallery, config.save_ranking, protocol)
    say(f"ranking: {path}")


def _provenance(saved: SavedEmbeddings, path: Path) -> Provenance | None:
  """Returns where embeddings come from; None where they say nothing of it."""
  if saved.provenance is None:
    return None
  try:
    return Provenance(**json.loads(saved.provenance))
  except (ValueError, TypeError) as error:
    raise EmbeddingsFileError(
      f"{path}: provenance: not what save_embeddings writes; leave it out of a file of your own"
    ) from error
