"""`--mode=evaluate`: a workdir's checkpoint, or saved embeddings → table, metrics.json, report."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from magnifier_jax.config import Config, EvaluationConfig
from magnifier_jax.data import dataset as dataset_lib
from magnifier_jax.data.dataset import ReidDataset
from magnifier_jax.devices import mesh as mesh_lib
from magnifier_jax.embed_dataset import DatasetEmbedder, TestEmbeddings, identities
from magnifier_jax.errors import UserError
from magnifier_jax.evaluation.embedding import Embeddings
from magnifier_jax.evaluation.metric_names import HEADINGS, PUBLISHED
from magnifier_jax.evaluation.ranking import Identities, RankingMetrics, evaluate_ranking
from magnifier_jax.evaluation.reranking import RerankingOptions, evaluate_reranked
from magnifier_jax.report.provenance import Provenance, provenance, unknown_provenance
from magnifier_jax.report.published import PublishedTable
from magnifier_jax.report.run_contents import report_data
from magnifier_jax.train_state import TrainState
from magnifier_jax.trained_network import TrainedNetwork, open_trained_network
from magnifier_jax.workdir.metrics_log import say

RERANKED = "all, re-ranked"


class EmbeddingsFileError(UserError):
  """A file of saved embeddings is missing or is not one."""


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
    _save_embeddings(path, embeddings, query, gallery, source)
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
  return results


def rank(
  embeddings: TestEmbeddings, query: Identities, gallery: Identities, config: EvaluationConfig
) -> Mapping[str, RankingMetrics]:
  """Returns {row: metrics}: all branches, re-ranked if asked for, and each branch alone."""
  whole = [side.whole() for side in embeddings]
  results = {"all": evaluate_ranking(*whole, query, gallery)}
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
  """Prints the table of results beside the published ones, and writes `metrics.json`."""
  say("\n" + results_table(results, source.published(), source.notes()))
  if jax.process_index() == 0:
    path = workdir / "metrics.json"
    rows = {name: metrics.summary() for name, metrics in results.items()}
    replacement = path.with_suffix(".tmp")
    replacement.write_text(json.dumps(source.head() | rows, indent=2) + "\n")
    os.replace(replacement, path)
    say(f"metrics: {path}")


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


def _save_embeddings(
  path: Path,
  embeddings: TestEmbeddings,
  query: Identities,
  gallery: Identities,
  source: Provenance,
) -> None:
  arrays = {"provenance": np.array(json.dumps(source._asdict()))}
  for side, vectors, who in zip(("query", "gallery"), embeddings, (query, gallery)):
    arrays |= {f"{side}/branch/{name}": values for name, values in vectors.branches.items()}
    arrays |= {f"{side}/person_id": who.person_id, f"{side}/camera_id": who.camera_id}
  replacement = path.with_suffix(".tmp.npz")
  np.savez(replacement, **arrays)
  os.replace(replacement, path)


def _evaluate_saved(config: Config, workdir: Path) -> Mapping[str, RankingMetrics]:
  path = Path(config.evaluation.embeddings)
  embeddings, query, gallery, source = load_embeddings(path)
  say(f"embeddings of {path}: {len(query.person_id)} queries, {len(gallery.person_id)} in gallery")
  results = rank(embeddings, query, gallery, config.evaluation)
  workdir.mkdir(parents=True, exist_ok=True)
  show(source or unknown_provenance(config), workdir, results)
  return results


def load_embeddings(
  path: Path,
) -> tuple[TestEmbeddings, Identities, Identities, Provenance | None]:
  """Reads a file that `config.evaluation.save_embeddings` wrote.

  Returns:
    The embeddings, the identities of the queries and of the gallery, and where they come from; an
    earlier version did not write the last.

  Raises:
    EmbeddingsFileError: when it is missing, damaged, or of other contents.
  """
  try:
    with np.load(path) as arrays:
      sides = [_read_side(arrays, side) for side in ("query", "gallery")]
      written = str(arrays["provenance"]) if "provenance" in arrays else None
      source = Provenance(**json.loads(written)) if written else None
  except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
    raise EmbeddingsFileError(
      f"config.evaluation.embeddings: cannot read {path} as saved embeddings ({error}); write "
      "one with --mode=evaluate --config.evaluation.save_embeddings=True"
    ) from error
  (query_vectors, query), (gallery_vectors, gallery) = sides
  return TestEmbeddings(query_vectors, gallery_vectors), query, gallery, source


def _read_side(arrays: Mapping[str, np.ndarray], side: str) -> tuple[Embeddings, Identities]:
  prefix = f"{side}/branch/"
  branches = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
  if not branches:
    raise KeyError(f"no {prefix}…")
  return Embeddings(branches), Identities(arrays[f"{side}/person_id"], arrays[f"{side}/camera_id"])
