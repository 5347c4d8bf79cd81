"""`--mode=evaluate`: a workdir's checkpoint, or saved embeddings → table, metrics.json, report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from magnifier_jax.config import Config, EvaluationConfig
from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.data.dataset import ReidDataset
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.embed_dataset import DatasetEmbedder, TestEmbeddings, identities
from magnifier_jax.evaluation.embeddings_file import (
  EmbeddingsFileError,
  IdentifiedEmbeddings,
  SavedEmbeddings,
  load_embeddings,
  save_embeddings,
)
from magnifier_jax.evaluation.metric_names import HEADINGS, PUBLISHED
from magnifier_jax.evaluation.ranking import Identities, RankingMetrics, evaluate_ranking
from magnifier_jax.evaluation.ranking_file import write_ranking
from magnifier_jax.evaluation.reranking import RerankingOptions, evaluate_reranked
from magnifier_jax.evaluation.thresholds import THRESHOLDS, Thresholds, calibrated
from magnifier_jax.files.user_path import user_path
from magnifier_jax.files.whole_file import make_folder, write_json
from magnifier_jax.report.provenance import Provenance, provenance, unknown_provenance
from magnifier_jax.report.published import PublishedTable
from magnifier_jax.report.run_contents import report_data
from magnifier_jax.train_state import TrainState
from magnifier_jax.trained_network import TrainedNetwork, open_trained_network
from magnifier_jax.workdir.metrics_log import say
from magnifier_jax.workdir.ownership import check_no_foreign_files

ALL = "all"
RERANKED = "all, re-ranked"


def evaluate_run(config: Config, workdir: Path) -> Mapping[str, RankingMetrics]:
  """Evaluates what a workdir holds and writes `metrics.json` and `report.html` there.

  Args:
    config: of the run; `config.evaluation` says what to do.
    workdir: of the run. With `config.evaluation.embeddings` it need not hold a checkpoint.

  Returns:
    {row of the table: metrics}; the first row is the whole embedding.

  Raises:
    CheckpointError: when there is no checkpoint that is whole, or one of another config.
    EmbeddingsFileError: when the file of embeddings cannot be read.
    ForeignFilesError: when results would be written over files of something else.
    WriteError: when a result cannot be written.
    ConfigError, SourceError, DeviceError: when the data set cannot be opened or embedded.
  """
  if config.evaluation.embeddings:
    return _evaluate_saved(config, workdir)
  dataset = dataset_lib.load(config.data)
  trained = open_trained_network(workdir, config.evaluation.checkpoint, config)
  source = provenance(config, trained.record, trained.step, chosen=trained.best)
  say(f"checkpoint of step {trained.step} in {workdir / 'checkpoints'}")
  embedder = DatasetEmbedder(config, dataset, trained.network, mesh_lib.data_mesh())
  say(f"embedding {len(dataset.query)} queries and {len(dataset.gallery)} gallery images")
  embeddings = embedder.embeddings(trained.params, trained.batch_stats)
  query, gallery = identities(dataset.query), identities(dataset.gallery)
  if config.evaluation.save_embeddings and jax.process_index() == 0:
    path = workdir / "embeddings.npz"
    saved = SavedEmbeddings(
      IdentifiedEmbeddings(embeddings.query, query, dataset.query.path),
      IdentifiedEmbeddings(embeddings.gallery, gallery, dataset.gallery.path),
      json.dumps(source._asdict()),
    )
    save_embeddings(path, saved)
    say(f"embeddings: {path}")
  return publish(config, source, workdir, dataset, embedder, trained, embeddings)


def publish(
  config: Config,
  source: Provenance,
  workdir: Path,
  dataset: ReidDataset,
  embedder: DatasetEmbedder,
  state: TrainState | TrainedNetwork,
  embeddings: TestEmbeddings,
) -> Mapping[str, RankingMetrics]:
  """Ranks embeddings in every way that the config asks for, and shows the results."""
  query, gallery = identities(dataset.query), identities(dataset.gallery)
  results = rank(embeddings, query, gallery, config.evaluation)
  show(source, workdir, results)
  # Every process takes part in predicting the parts; one writes.
  query_parts = embedder.predicted_query_parts(state.params, state.batch_stats)
  data = report_data(source, workdir, dataset, embeddings, results, query_parts)
  if jax.process_index() == 0:
    from magnifier_jax.report.page import write_report  # Matplotlib: not before it is needed

    path = workdir / "report.html"
    write_report(path, data)
    say(f"report: {path}")
    sides = [
      IdentifiedEmbeddings(side, who, split.path)
      for side, who, split in zip(embeddings, (query, gallery), (dataset.query, dataset.gallery))
    ]
    _save_ranking(config.evaluation, workdir, *sides)
  return results


def rank(
  embeddings: TestEmbeddings, query: Identities, gallery: Identities, config: EvaluationConfig
) -> Mapping[str, RankingMetrics]:
  """Returns {row: metrics}: all branches, re-ranked if asked for, and each branch alone."""
  whole = [side.whole() for side in embeddings]
  results = {ALL: evaluate_ranking(*whole, query, gallery)}
  if config.rerank:
    say("re-ranking")
    options = RerankingOptions(config.rerank_k1, config.rerank_k2, config.rerank_lambda)
    results[RERANKED] = evaluate_reranked(*whole, query, gallery, options)
  if len(embeddings.query.branches) > 1:
    for branch in embeddings.query.branches:
      sides = [side.branch(branch) for side in embeddings]
      results[branch] = evaluate_ranking(*sides, query, gallery)
  return results


def show(source: Provenance, workdir: Path, results: Mapping[str, RankingMetrics]) -> None:
  """Writes `metrics.json`, then prints the table of results beside the published ones."""
  path = workdir / "metrics.json"
  if jax.process_index() == 0:
    rows = {name: metrics.summary() for name, metrics in results.items()}
    found = _thresholds(source, results)
    write_json(path, source.head() | rows | ({THRESHOLDS: found.to_json()} if found else {}))
  say("\n" + results_table(results, source.published(), source.notes()))
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


def _evaluate_saved(config: Config, workdir: Path) -> Mapping[str, RankingMetrics]:
  check_no_foreign_files(workdir)
  path = user_path(config.evaluation.embeddings)
  saved = load_embeddings(path)
  query, gallery = saved.query.identities, saved.gallery.identities
  say(f"embeddings of {path}: {len(query.person_id)} queries, {len(gallery.person_id)} in gallery")
  embeddings = TestEmbeddings(saved.query.embeddings, saved.gallery.embeddings)
  results = rank(embeddings, query, gallery, config.evaluation)
  make_folder(workdir)
  show(_provenance(saved, path) or unknown_provenance(config), workdir, results)
  if jax.process_index() == 0:
    _save_ranking(config.evaluation, workdir, *saved[:2])
  return results


def _save_ranking(
  config: EvaluationConfig,
  workdir: Path,
  query: IdentifiedEmbeddings,
  gallery: IdentifiedEmbeddings,
) -> None:
  """Writes the first gallery images of each query, where the config asks for it."""
  if config.save_ranking:
    path = workdir / "ranking.csv"
    write_ranking(path, query, gallery, config.save_ranking)
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
