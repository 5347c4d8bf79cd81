"""Finds the images of a gallery that are nearest to an image, or to each of many.

  python -m magnifier_jax.tools.search --gallery=people --query=person.jpg --output=result.html

The gallery is one of tools.embed. The page shows photographs; keep it as private as they are. A
.json or .csv file has the same for programs. Matches below the threshold of a false-accept rate are
marked: the share of pairs of different people, among the test people of the network's data set,
that are taken for one person.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from magnifier_jax.devices.compilation_cache import use_compilation_cache
from magnifier_jax.files.user_path import user_path
from magnifier_jax.files.whole_file import check_writable
from magnifier_jax.retrieval.embedder import Embedder, load
from magnifier_jax.retrieval.gallery_place import AnyGallery, gallery_place, open_gallery
from magnifier_jax.retrieval.search_files import check_suffix, write_result
from magnifier_jax.retrieval.search_page import TITLE
from magnifier_jax.retrieval.search_results import SearchError, SearchResult
from magnifier_jax.retrieval.searching import SearchOptions, read_queries, search
from magnifier_jax.tools.program import check_new, make_parser, run_tool
from magnifier_jax.workdir.metrics_log import say

_PRINTED_QUERIES = 3


def main(argv: Sequence[str]) -> str:
  """Searches as the arguments say; returns what was found."""
  options = _parser().parse_args(argv)
  check_suffix(options.output)
  check_new(options.output, options.overwrite, TITLE if options.output.suffix == ".html" else "")
  check_writable(options.output)
  gallery = open_gallery(options.gallery)
  wanted = SearchOptions(
    options.k,
    options.exclude_camera,
    options.time,
    options.far,
    options.rerank,
    options.tracks,
    options.index == "ivf",
    say,
    options.calibrated_on,
  )
  queries = read_queries(
    options.query, gallery, lambda: _open_network(gallery, options.network), options.tracks
  )
  for failure in queries.failed:
    say(f"✗ {failure}")
  result = search(gallery, queries, wanted)
  write_result(result, options.output)
  return "\n".join([*_summary(result), f"written: {options.output}"])


def _open_network(gallery: AnyGallery, named: Path | None) -> Embedder:
  """Opens the network that was named, or the one that the gallery was made with."""
  use_compilation_cache(None)
  if named is not None:
    return load(named)
  if not gallery.network_source or not Path(gallery.network_source).exists():
    raise SearchError(
      f"--network: missing; the gallery's is {gallery.network}, and it does not lie where it did"
    )
  return load(gallery.network_source)


def _summary(result: SearchResult) -> list[str]:
  """Returns lines for the console: the first matches of the first queries."""
  lines = []
  for query in result.queries[:_PRINTED_QUERIES]:
    lines.append(query.name)
    for rank, match in enumerate(query.matches, start=1):
      sign = "✓" if result.is_below(match) else " "
      camera = f"  camera {match.camera}" if match.camera else ""
      name = match.path or f"row {match.row}"
      lines.append(f"  {sign} {rank:2}  {match.distance:.4f}{camera}  {name}")
  if len(result.queries) > _PRINTED_QUERIES:
    lines.append(f"and {len(result.queries) - _PRINTED_QUERIES:,} queries more")
  if result.threshold is not None:
    lines.append(
      f"✓ is below {result.threshold.distance_threshold:.4f}: false-accept rate "
      f"{result.threshold.false_accept_rate:g} on {result.calibrated_on}; with "
      f"{result.searched:,} searched, expect {result.expected_false_accepts:.3g} of other people "
      "for each query"
    )
  return [*lines, *result.notes]


def _cameras(text: str) -> tuple[str, ...]:
  return tuple(camera for camera in text.split(",") if camera)


def _time_range(text: str) -> tuple[float, float]:
  start, _, end = text.partition(",")
  return float(start), float(end)


def _parser() -> argparse.ArgumentParser:
  parser = make_parser("search", __doc__)
  add = parser.add_argument
  path = {"type": user_path, "metavar": "PATH"}
  add(
    "--gallery",
    type=gallery_place,
    required=True,
    metavar="PLACE",
    help="to search, of tools.embed: a folder, or lance://PATH or s3://…",
  )
  add("--query", **path, required=True, help="an image, a folder or CSV file of images, a gallery")
  add("--output", **path, required=True, help="a .html, .json or .csv file")
  add("--network", **path, help="the gallery's, where it no longer lies where it did")
  add("--k", type=int, default=10, metavar="N", help="matches of each query; default: %(default)s")
  add(
    "--exclude_camera",
    type=_cameras,
    default=(),
    metavar="NAME,…",
    help="leave out rows of these cameras",
  )
  add("--time", type=_time_range, metavar="FROM,TO", help="only rows of this time")
  add(
    "--far", type=float, metavar="RATE", help="false-accept rate of the threshold; default: 0.001"
  )
  add(
    "--calibrated_on",
    metavar="DATASET",
    help="data set of the threshold, where the network was tested on several",
  )
  add("--rerank", action="store_true", help="order matches by k-reciprocal re-ranking")
  add("--tracks", action="store_true", help="search each track as one, by the mean of its images")
  add(
    "--index",
    choices=("exact", "ivf"),
    default="exact",
    help="ivf: approximate search with FAISS, for a million images and more; default: %(default)s",
  )
  add("--overwrite", action="store_true", help="replace the file --output")
  return parser


def cli() -> None:
  """Entry point."""
  logging.set_verbosity(logging.ERROR)  # Orbax warns that what is opened for reading is read-only
  run_tool(main)


if __name__ == "__main__":
  cli()
