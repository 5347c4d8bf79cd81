"""Checks a data set before any training: reads every file once, and names all that is wrong.

  python -m magnifier_jax.tools.check_data --config=configs/cuhk03.py

Prints what the data set holds beside the published counts, and writes a page with samples and their
part labels; it shows photographs, so it belongs with the data. Exit code 0: one can train. 1: there
are faults that would stop training. 2: the command or the config is wrong.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from PIL import Image
from tqdm import tqdm

from magnifier_jax.body_parts import PART_NAMES, PARTS
from magnifier_jax.config import DataConfig
from magnifier_jax.config_argument import load_config
from magnifier_jax.data import dataset, image_files, inspection
from magnifier_jax.data.datasets.file_builder import FileReidBuilder, FileSource
from magnifier_jax.data.inspection import Fault, Finding, Inspection, SplitInspection
from magnifier_jax.data.part_label_files import label_folder
from magnifier_jax.errors import UserError
from magnifier_jax.files.user_path import user_path
from magnifier_jax.files.whole_file import check_writable, write_text
from magnifier_jax.part_labelling import labelling
from magnifier_jax.part_labelling.label_record import LabelRecord
from magnifier_jax.report import pictures as report_pictures
from magnifier_jax.report.html_templates import template_environment
from magnifier_jax.tools.program import check_new, make_parser, run_tool

_TITLE = "<title>Data check: "  # of the page
_SAMPLES = 12  # a split
_SAMPLE_HEIGHT = 256  # pixels
_PRINTED = 20  # findings of a kind; the page has the others


class CheckError(UserError):
  """There is nothing to check, or nowhere to write to."""


class Sample(NamedTuple):
  """An image of the page."""

  path: str
  person_id: int | None
  camera_id: int | None
  image: np.ndarray  # (H, W, 3) uint8
  part_labels: np.ndarray | None  # (H, W) uint8


def check_data(
  config: DataConfig, page: Path, overwrite: bool = False, camera_rule: str = "cross_camera"
) -> bool:
  """Prints what a data set holds and what is wrong with it, and writes a page of samples.

  Args:
    config: of the data.
    page: HTML file to write.
    overwrite: whether a file there is replaced that is no such page.
    camera_rule: of the evaluation, which says what a match is.

  Returns:
    Whether one can train.

  Raises:
    CheckError: when the data set is not made of files, or the page's folder does not exist.
    OverwriteError: when the page would take the place of another file.
    WriteError: when the page cannot be written; what was found is printed all the same.
    ConfigError: when no data set has that name.
  """
  builder = dataset.find_builder(config)
  if not isinstance(builder, FileReidBuilder):
    raise CheckError(f"config.data.dataset: {config.dataset} is drawn, there are no files to check")
  if not page.parent.is_dir():
    raise CheckError(f"--page: the folder {page.parent} does not exist; create it first")
  check_writable(page)  # reading everything takes a while
  manual_dir = user_path(config.manual_dir)
  check_new(page, overwrite, written_by=_TITLE)
  result = inspection.inspect(builder, manual_dir, config, _SAMPLES, _show_progress, camera_rule)
  makers = list(_part_label_makers(builder, manual_dir, result))
  try:
    write_text(page, _render(config, builder, result, makers))
  finally:
    print("\n".join(_text(config, result, makers, page)))
  return result.can_train


def _show_progress(sources: Sequence[FileSource], split: str) -> Iterable[FileSource]:
  return tqdm(sources, desc=f"Reading {split}", unit="image", mininterval=1)


def _text(
  config: DataConfig, result: Inspection, makers: Sequence[str], page: Path
) -> Iterator[str]:
  """Yields the lines of the summary."""
  yield f"{config.dataset} in {user_path(config.manual_dir)}"
  for row in _table(result.splits):
    yield "".join(f"{cell:>{width}}" for cell, width in zip(row, (8, *(21,) * 3, 9, 13, 14, 26)))
  yield from _part_shares(result.splits)
  yield from makers
  for fault in Fault:
    findings = [finding for finding in result.findings if finding.fault is fault]
    if findings:
      yield from _finding_lines(fault, findings, page)
  yield f"samples: {page}"
  stopping = sum(finding.fault.stops_training for finding in result.findings)
  if stopping:
    yield f"One cannot train yet: {stopping} faults would stop it."
  else:
    yield "One can train." if result.findings else "Nothing is wrong. One can train."


def _table(splits: Sequence[SplitInspection]) -> Iterator[tuple[str, ...]]:
  """Yields the rows of the summary, its heading first."""
  head = ("split", "images (published)", "people (published)", "cameras (published)")
  yield (*head, "junk", "distractors", "part labels", "size (median, smallest)")
  for split in splits:
    published = split.published or (None,) * 3
    counts = zip((split.images, split.people, split.cameras), published)
    yield (
      split.name,
      *(f"{count:,} ({'–' if known is None else f'{known:,}'})" for count, known in counts),
      f"{split.junk:,}",
      f"{split.distractors:,}",
      f"{split.part_labels:,}",
      _sizes(split.sizes_hw),
    )


def _sizes(sizes_hw: np.ndarray) -> str:
  if not len(sizes_hw):
    return "–"
  typical, smallest = np.median(sizes_hw, axis=0).astype(int), sizes_hw.min(axis=0)
  return f"{typical[0]} × {typical[1]}, {smallest[0]} × {smallest[1]}"


def _part_shares(splits: Sequence[SplitInspection]) -> Iterator[str]:
  for split in splits:
    if split.part_labels:
      shares = 100 * split.part_pixels / split.part_pixels.sum()
      parts = (f"{name} {share:.1f}" for name, share in zip(PART_NAMES, shares))
      yield f"{split.name}, % of pixels: " + ", ".join(parts)


def _part_label_makers(
  builder: FileReidBuilder, manual_dir: Path, result: Inspection
) -> Iterator[str]:
  """Yields how the part labels of each split were made, where `label_parts` made some."""
  record = LabelRecord(label_folder(builder.data_set_folder(manual_dir)))
  if not record.has_labels:
    return
  for split in result.splits:
    places = labelling.find_places(builder, split.name, manual_dir, folder=None)
    if places:
      makers = labelling.count_makers(places, record)
      counts = ", ".join(f"{maker} ({labels:,})" for maker, labels in makers.items())
      yield f"{split.name}, part labels made by: {counts or 'nobody'}"


def _finding_lines(fault: Fault, findings: Sequence[Finding], page: Path) -> Iterator[str]:
  yield f"{'✗' if fault.stops_training else 'note:'} {fault.value}: {len(findings)}"
  yield from (f"    {finding.message}" for finding in findings[:_PRINTED])
  if len(findings) > _PRINTED:
    yield f"    and {len(findings) - _PRINTED} more, listed in {page}"


def _render(
  config: DataConfig, builder: FileReidBuilder, result: Inspection, makers: Sequence[str]
) -> str:
  """Returns the page as HTML that needs no other file."""
  # The page looks like the report of a run.
  environment = template_environment("magnifier_jax.tools", "magnifier_jax.report")
  environment.filters |= {
    "photograph": report_pictures.photograph_uri,
    "paint": report_pictures.paint_parts,
  }
  heading, *rows = _table(result.splits)
  return environment.get_template("check_data.html").render(
    dataset=config.dataset,
    can_train=result.can_train,
    heading=heading,
    rows=rows,
    shares=[*_part_shares(result.splits), *makers],
    faults=[
      (fault, [finding.message for finding in result.findings if finding.fault is fault])
      for fault in Fault
    ],
    samples={
      split.name: [_sample(builder, source) for source in split.samples] for split in result.splits
    },
    parts=PARTS,
  )


def _sample(builder: FileReidBuilder, source: FileSource) -> Sample:
  pixels = image_files.decode_image(builder.read_image(source).encoded)
  labels = None
  if source.part_labels is not None:
    try:
      labels = image_files.decode_part_labels(builder.read_part_labels(source, pixels.shape[:2]))
    except UserError:
      labels = None  # a finding says so
  image = Image.fromarray(pixels)
  image.thumbnail((image.width, _SAMPLE_HEIGHT))
  _, path, person_id, camera_id = source.image
  return Sample(path, person_id, camera_id, np.asarray(image), labels)


def main(argv: Sequence[str]) -> int:
  """Runs the command line; returns the exit code."""
  parser = make_parser("check_data", __doc__)
  parser.add_argument(
    "--config",
    required=True,
    metavar="FILE[:VARIANT]",
    help="config file; fields follow as --config.field=value",
  )
  parser.add_argument(
    "--page",
    type=user_path,
    default="check_data.html",
    metavar="FILE",
    help="page to write (%(default)s)",
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace a file --page that is no such page"
  )
  options, overrides = parser.parse_known_args(argv)
  config = load_config(options.config, overrides)
  camera_rule = config.evaluation.camera_rule
  return 0 if check_data(config.data, options.page, options.overwrite, camera_rule) else 1


def cli() -> None:
  """Entry point."""
  logging.set_verbosity(logging.WARNING)
  run_tool(main)


if __name__ == "__main__":
  cli()
