"""Time and peak memory of the evaluation, beside the way most code does it.

  python -m benchmarks.evaluation                             about four minutes
  python -m benchmarks.evaluation --full                      the large galleries too, minutes more
  python -m benchmarks.evaluation --protocol=DIR --json=FILE  Market-1501's real identities

Each line is a process of its own, so that its peak memory is its own: the interpreter, the imports
and the embeddings are in it. Each process runs twice and keeps the quicker: memory is new to the
first run, and XLA compiles in it. The ways take turns, three rounds of them, and seconds are the
median round's (of one round of one run for the large galleries); distances included, embedding
excluded. CPU seconds are those of all threads, user and system.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import opponents, workloads
from benchmarks.workloads import Workload
from magnifier_jax.devices.mesh import data_mesh
from magnifier_jax.evaluation.ranking import RankingMetrics, evaluate_ranking
from magnifier_jax.evaluation.reranking import (
  PAPER_OPTIONS,
  evaluate_reranked,
  reranked_distances,
)

_MEANS = ("mAP", "mAP_trapezoid", "mINP")


class Case(NamedTuple):
  """A workload and the ways to do it; each returns numbers that must agree with the first's."""

  workload: Callable[[], Workload]
  ways: dict[str, Callable[[Workload], np.ndarray]]
  rounds: int = 3
  repeats: int = 2


class Measurement(NamedTuple):
  """One line of the table."""

  case: str
  way: str
  seconds: float
  cpu_seconds: float
  peak_megabytes: float
  difference: float  # largest, from the case's first way


def _rank(workload: Workload) -> np.ndarray:
  return _numbers(evaluate_ranking(*workload))


def _rank_on_mesh(workload: Workload) -> np.ndarray:
  return _numbers(evaluate_ranking(*workload, mesh=data_mesh()))


def _numbers(metrics: RankingMetrics) -> np.ndarray:
  return np.array([*(getattr(metrics, name) for name in _MEANS), *metrics.cmc])


def _rank_by_sorting(workload: Workload) -> np.ndarray:
  return _rank_matrix(workload, opponents.evaluate_by_sorting)


def _rank_by_sorting_at_once(workload: Workload) -> np.ndarray:
  return _rank_matrix(workload, opponents.evaluate_by_sorting_at_once)


def _rank_matrix(
  workload: Workload, evaluate: Callable[..., dict[str, np.ndarray | float]]
) -> np.ndarray:
  distances = opponents.squared_distances(*workload[:2])
  means = evaluate(distances, workload.query, workload.gallery)
  return np.array([*(means[name] for name in _MEANS), *means["cmc"]])


def _rerank(workload: Workload) -> np.ndarray:
  blocks = reranked_distances(workload.query_embeddings, workload.gallery_embeddings)
  return np.concatenate([block.copy() for block in blocks])


def _rerank_densely(workload: Workload) -> np.ndarray:
  embeddings = np.concatenate(workload[:2])
  distances = opponents.squared_distances(embeddings, embeddings)
  return opponents.rerank_densely(distances, len(workload.query_embeddings), *PAPER_OPTIONS)


def _evaluate_reranked(workload: Workload) -> np.ndarray:
  return _numbers(evaluate_reranked(*workload))


def _cases(protocol: Path | None, full: bool) -> dict[str, Case]:
  ranking = {
    "streamed": _rank,
    "streamed, XLA": _rank_on_mesh,
    "sorted": _rank_by_sorting,
    "sorted at once": _rank_by_sorting_at_once,
  }
  reranking = {"sparse": _rerank, "dense": _rerank_densely}
  cases = {
    "metrics, 3,368 × 15,913": Case(lambda: workloads.market1501(protocol), ranking),
    "re-ranking, 400 + 1,600": Case(workloads.two_thousand, reranking),
    "re-ranking, 1,400 + 5,328": Case(workloads.cuhk03, reranking),
  }
  if full:
    cases |= {
      "metrics, 1,000 × 1,000,000": Case(workloads.million, {"streamed": _rank}, 1, 1),
      "metrics, 11,659 × 82,161": Case(workloads.msmt17, {"streamed": _rank}, 1, 1),
      "re-ranking and metrics, 11,659 + 82,161": Case(
        workloads.msmt17, {"sparse": _evaluate_reranked}, 1, 1
      ),
    }
  return cases


def _measure_here(case: Case, way: str, output: Path) -> dict[str, float]:
  """Runs one line in this process, and stores the numbers that came out."""
  workload = case.workload()
  runs = []
  for _ in range(case.repeats):
    start, cpu_start = time.perf_counter(), time.process_time()
    numbers = case.ways[way](workload)
    runs.append((time.perf_counter() - start, time.process_time() - cpu_start))
  np.save(output, numbers)
  seconds, cpu_seconds = min(runs)
  return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_megabytes": _peak_megabytes()}


def _peak_megabytes() -> float:
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def _measure_apart(arguments: list[str], case: str, way: str, folder: Path) -> Measurement:
  """Runs one line in a process of its own."""
  output = folder / f"{way}.npy"
  command = [sys.executable, "-m", "benchmarks.evaluation", *arguments]
  command += [f"--case={case}", f"--way={way}", f"--output={output}"]
  result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
  return Measurement(case, way, difference=0.0, **result)


def _measure_case(arguments: list[str], name: str, case: Case) -> list[Measurement]:
  """Measures the ways in turns, so that a disturbance of the machine meets them all."""
  with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    rounds = [
      [_measure_apart(arguments, name, way, folder) for way in case.ways]
      for _ in range(case.rounds)
    ]
    numbers = [np.load(folder / f"{way}.npy") for way in case.ways]
  return [
    _median_round(list(lines))._replace(difference=float(np.abs(own - numbers[0]).max()))
    for lines, own in zip(zip(*rounds), numbers)
  ]


def _median_round(lines: list[Measurement]) -> Measurement:
  line = sorted(lines, key=lambda line: line.seconds)[len(lines) // 2]
  return line._replace(peak_megabytes=max(line.peak_megabytes for line in lines))


def _print_lines(lines: list[Measurement]) -> None:
  for line in lines:
    ratio = line.seconds / lines[0].seconds
    print(
      f"{line.case:40} {line.way:14} {line.seconds:9.2f} {ratio:7.1f} {line.cpu_seconds:11.2f} "
      f"{line.peak_megabytes:9.0f} {line.difference:11.1e}",
      flush=True,
    )


def _parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--full", action="store_true", help="measure the large galleries too")
  parser.add_argument("--protocol", type=Path, help="folder of Market-1501's .mat files")
  parser.add_argument("--json", type=Path, help="also write the table here")
  for name in ("--case", "--way", "--output"):
    parser.add_argument(name, help=argparse.SUPPRESS)  # how the script calls itself
  return parser.parse_args()


def main() -> None:
  arguments = _parse_arguments()
  cases = _cases(arguments.protocol, arguments.full)
  if arguments.case:
    print(json.dumps(_measure_here(cases[arguments.case], arguments.way, arguments.output)))
    return
  print(f"numpy {np.__version__}, jax {jax.__version__}, {platform.machine()}")
  print(
    f"{'':40} {'':14} {'seconds':>9} {'ratio':>7} {'CPU seconds':>11} {'peak MB':>9} "
    f"{'difference':>11}"
  )
  lines = []
  for name, case in cases.items():
    lines += _measure_case(sys.argv[1:], name, case)
    _print_lines(lines[-len(case.ways) :])
  if arguments.json:
    arguments.json.write_text(json.dumps([line._asdict() for line in lines], indent=2) + "\n")


if __name__ == "__main__":
  main()
