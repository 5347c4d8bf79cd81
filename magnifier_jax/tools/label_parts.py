"""Makes part labels for a data set that has none, or not all.

  python -m magnifier_jax.tools.label_parts onnx --config=configs/market1501.py \\
    --model=parser.onnx --classes=lip
  python -m magnifier_jax.tools.label_parts pose --config=configs/market1501.py \\
    --model=mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl
  python -m magnifier_jax.tools.label_parts network --config=configs/market1501.py \\
    --workdir=runs/cuhk03
  python -m magnifier_jax.tools.label_parts files --config=configs/market1501.py --folder=masks

Labels go where training looks for them. Images that have labels are left out, so the same command
goes on where it stopped; beside the labels, label_parts.jsonl says by which method each was made.
Exit code 0: every image has labels. 1: some have none. 2: the command or the config is wrong.
"""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging
from tqdm import tqdm

from magnifier_jax.body_parts import PART_NAMES
from magnifier_jax.config import check_pixel_scale
from magnifier_jax.config_argument import load_config
from magnifier_jax.data import dataset, part_label_files
from magnifier_jax.data.datasets.file_builder import FileReidBuilder
from magnifier_jax.data.records import SPLITS
from magnifier_jax.files.user_path import user_path
from magnifier_jax.part_labelling import labelling
from magnifier_jax.part_labelling.class_maps import CLASS_MAPS, find_class_map
from magnifier_jax.part_labelling.labeller import LabellingError, PartLabeller
from magnifier_jax.part_labelling.labelling import Coverage, LabelFolder, Place
from magnifier_jax.part_labelling.photographs import Photographs
from magnifier_jax.tools.program import add_checkpoint, make_parser, run_tool

_NAMED = 10  # images without labels that are printed a split


def main(argv: Sequence[str]) -> int:
  """Runs the command line; returns the exit code."""
  options, overrides = _parser().parse_known_args(argv)
  config = load_config(options.config, overrides).data
  builder = dataset.find_builder(config)
  if not isinstance(builder, FileReidBuilder):
    raise LabellingError(f"config.data.dataset: {config.dataset} is drawn, its parts are known")
  splits = _splits(options.splits)
  labeller = _LABELLERS[options.method](options)
  manual_dir, folder = user_path(config.manual_dir), options.to
  places = {
    split: _sampled(labelling.find_places(builder, split, manual_dir, folder), options.sample)
    for split in splits
  }
  photographs = Photographs(builder, manual_dir)
  labels_at = folder or part_label_files.label_folder(builder.data_set_folder(manual_dir))
  for place in {labels_at} | {p.file.parent for split in places.values() for p in split}:
    photographs.check_folder(place, is_chosen=folder is not None)
  label_folder = LabelFolder(labels_at, photographs)
  print(f"{labeller.method} → {label_folder.folder}", flush=True)
  coverages = []
  for split in splits:
    with tqdm(total=len(places[split]), desc=f"Labelling {split}", unit="image") as bar:
      coverages.append(
        labelling.label_split(
          builder,
          split,
          places[split],
          label_folder,
          labeller,
          overwrite=options.overwrite,
          progress=bar.update,
        )
      )
  print("\n".join(_report(coverages)))
  return 0 if all(c.labelled == c.images for c in coverages) else 1


def _splits(text: str) -> list[str]:
  splits = text.split(",")
  for split in splits:
    if split not in SPLITS:
      raise LabellingError(f"--splits: no split is called {split!r}; choose of {','.join(SPLITS)}")
  return splits


def _sampled(places: list[Place], number: int) -> list[Place]:
  """Returns some of the images, evenly spaced; all for 0."""
  if not number:
    return places
  return [places[i] for i in np.unique(np.linspace(0, len(places) - 1, number).astype(int))]


def _report(coverages: Sequence[Coverage]) -> Iterator[str]:
  """Yields the lines of the summary."""
  for c in coverages:
    yield (
      f"{c.split}: {c.labelled:,} of {c.images:,} images have part labels: {c.made_now:,} made "
      f"now, {c.made_before:,} before by the same method, {c.made_otherwise.total():,} otherwise"
    )
    for maker, labels in c.made_otherwise.items():
      yield f"  kept: {labels:,} {maker}"
    if c.part_pixels.any():
      shares = 100 * c.part_pixels / c.part_pixels.sum()
      yield "  % of pixels: " + ", ".join(f"{p} {s:.1f}" for p, s in zip(PART_NAMES, shares))
    yield from _named("nothing was found in", c.nothing_found)
    yield from _named("unreadable:", c.failed)
    yield from _named("not part labels, and left as they are; move them away:", c.left_alone)
  if any(c.made_otherwise for c in coverages):
    yield "Labels that were given, or made otherwise, stay; --overwrite replaces them."


def _named(what: str, images: Sequence[str]) -> Iterator[str]:
  if images:
    yield f"  {what} {len(images):,}:"
    yield from (f"    {image}" for image in images[:_NAMED])
    if len(images) > _NAMED:
      yield f"    and {len(images) - _NAMED} more"


def _onnx_labeller(options: argparse.Namespace) -> PartLabeller:
  from magnifier_jax.part_labelling.onnx_parser import OnnxLabeller, OnnxOptions

  check_pixel_scale("--mean", options.mean)
  check_pixel_scale("--std", options.std)
  return OnnxLabeller(
    options.model,
    find_class_map(options.classes),
    OnnxOptions(
      input_size_hw=options.input_size,
      pixel_mean=options.mean,
      pixel_std=options.std,
      channel_order=options.channel_order,
      fit=options.fit,
      resize=options.resize,
      output=options.output,
    ),
  )


def _pose_labeller(options: argparse.Namespace) -> PartLabeller:
  from magnifier_jax.part_labelling.pose_landmarks import PoseLabeller

  return PoseLabeller(options.model)


def _network_labeller(options: argparse.Namespace) -> PartLabeller:
  from magnifier_jax.part_labelling.network_labels import NetworkLabeller

  return NetworkLabeller(options.workdir, options.checkpoint, options.share_steps)


def _file_labeller(options: argparse.Namespace) -> PartLabeller:
  from magnifier_jax.part_labelling.other_label_files import FileLabeller

  return FileLabeller(options.folder, find_class_map(options.classes), options.scale)


_LABELLERS = {
  "onnx": _onnx_labeller,
  "pose": _pose_labeller,
  "network": _network_labeller,
  "files": _file_labeller,
}


def _count(text: str) -> int:
  if not text.isdecimal():
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
  return int(text)


def _size(text: str) -> tuple[int, int]:
  height, x, width = text.partition("x")
  if not (x and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
    raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, as 473x473 is")
  return int(height), int(width)


def _colour(text: str) -> tuple[float, ...]:
  values = text.split(",")
  try:
    red, green, blue = map(float, values)
  except ValueError:
    raise argparse.ArgumentTypeError(f"{text!r} is not R,G,B, as 123.7,116.3,103.5 is") from None
  return red, green, blue


def _parser() -> argparse.ArgumentParser:
  parser = make_parser("label_parts", __doc__)
  methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")

  def method(name: str, summary: str) -> argparse.ArgumentParser:
    return methods.add_parser(
      name, help=summary, description=summary, parents=[_shared_options()], allow_abbrev=False
    )

  _add_onnx_options(method("onnx", "any human-parsing network in an ONNX file"))
  pose = method("pose", "MediaPipe's pose landmarks and person mask, drawn as limbs")
  pose.add_argument(
    "--model",
    required=True,
    type=user_path,
    metavar="FILE",
    help="pose_landmark_*.tflite, or MediaPipe's wheel",
  )
  network = method("network", "the part segmentation head of a trained run")
  network.add_argument(
    "--workdir", required=True, type=user_path, metavar="FOLDER", help="of the run"
  )
  add_checkpoint(network)
  network.add_argument(
    "--share_steps",
    type=_count,
    default=3,
    metavar="N",
    help="steps in which the share of each part is estimated on an image; 0 takes them for equal "
    "(%(default)s)",
  )
  files = method("files", "one-channel PNG or .npy files in another layout or of other classes")
  files.add_argument(
    "--folder", required=True, type=user_path, metavar="FOLDER", help="that holds the files"
  )
  _add_classes(files, "parts")
  files.add_argument(
    "--scale", action="store_true", help="bring labels of another size to that of their image"
  )
  return parser


def _shared_options() -> argparse.ArgumentParser:
  shared = argparse.ArgumentParser(add_help=False)
  add = shared.add_argument
  add(
    "--config",
    required=True,
    metavar="FILE[:VARIANT]",
    help="config file of the data set; fields follow as --config.field=value",
  )
  add(
    "--splits",
    default="train",
    metavar="SPLITS",
    help=f"of {','.join(SPLITS)}; only training needs labels (%(default)s)",
  )
  add(
    "--to",
    type=user_path,
    metavar="FOLDER",
    help="of the labels (default: where training looks for them)",
  )
  add("--overwrite", action="store_true", help="replace labels given or made otherwise")
  add(
    "--sample",
    type=_count,
    default=0,
    metavar="N",
    help="label N images of each split only, evenly spaced, to try a method",
  )
  return shared


def _add_classes(parser: argparse.ArgumentParser, default: str | None) -> None:
  parser.add_argument(
    "--classes",
    required=default is None,
    default=default,
    metavar="MAP",
    help=f"what the classes are: {', '.join(CLASS_MAPS)}, or a .json or .yaml file of "
    "{class number: part}" + (f" ({default})" if default else ""),
  )


def _add_onnx_options(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add("--model", required=True, type=user_path, metavar="FILE", help="ONNX file")
  _add_classes(parser, None)
  add(
    "--input_size",
    type=_size,
    metavar="HxW",
    help="where the network takes any size (512x512)",
  )
  add("--mean", type=_colour, default="123.675,116.28,103.53", metavar="R,G,B", help="of 0…255")
  add("--std", type=_colour, default="58.395,57.12,57.375", metavar="R,G,B", help="of 0…255")
  add("--channel_order", choices=("rgb", "bgr"), default="rgb", help="of the network's input")
  add("--fit", choices=("pad", "stretch"), default="pad", help="pad keeps the aspect ratio")
  add(
    "--resize",
    choices=("bilinear", "nearest"),
    default="bilinear",
    help="of the class scores to the size of the image",
  )
  add("--output", default="", metavar="NAME", help="default: the first that fits the classes")


def cli() -> None:
  """Entry point."""
  logging.set_verbosity(logging.ERROR)  # Orbax warns that what is opened for reading is read-only
  run_tool(main, "interrupted; the same command goes on from here")


if __name__ == "__main__":
  cli()
