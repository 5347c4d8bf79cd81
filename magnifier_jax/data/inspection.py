"""Reads all of the user's files once and says what is wrong with them, instead of stopping at the
first fault as preparing does."""

import enum
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from magnifier_jax.body_parts import NUM_PARTS
from magnifier_jax.config import DataConfig
from magnifier_jax.data import image_files
from magnifier_jax.data.datasets.file_builder import JUNK_PERSON_ID, FileReidBuilder, FileSource
from magnifier_jax.data.records import NO_CAMERA_ID, SPLITS, SourceError, SplitCounts

_HEIGHT_RANGE = (32, 2048)  # pixels; beyond it an image is hardly a person's box
_MIN_WIDTH = 12
_ASPECT_RANGE = (1.0, 8.0)  # height / width
_CROSS_CAMERA, _SINGLE_SHOT = "cross_camera", "single_shot"  # values of evaluation.camera_rule


class Fault(enum.Enum):
  """A kind of fault; those whose `stops_training` is false are worth knowing only."""

  SPLIT = "split that cannot be listed"
  NAME = "image of unknown person or camera"
  IMAGE = "unreadable image"
  LABELS_MISSING = "missing part labels"
  LABELS = "wrong part labels"
  FEW_PEOPLE = "too few people"
  NOTHING_MATCHES = "test that cannot be evaluated"
  DUPLICATE = "duplicated image"
  SIZE = "oddly sized image"
  TURNED = "image turned by its EXIF orientation"
  FEW_IMAGES = "person with few images"
  NO_MATCH = "query without a match"
  LOST_PERSON = "person without a usable image"
  UNUSED = "kind of file that is not used"
  IN_BOTH = "query that is in the gallery too"
  TRAINED_ON = "test person who is trained on"

  @property
  def stops_training(self) -> bool:
    return self in (
      Fault.SPLIT,
      Fault.NAME,
      Fault.IMAGE,
      Fault.LABELS_MISSING,
      Fault.LABELS,
      Fault.FEW_PEOPLE,
      Fault.NOTHING_MATCHES,
    )


class Finding(NamedTuple):
  """One fault."""

  fault: Fault
  message: str  # names the file or the person


class Inspected(NamedTuple):
  """What one image was found to be. Unknown: None."""

  source: FileSource
  size_hw: tuple[int, int] | None
  digest: bytes | None  # of the file
  part_pixels: np.ndarray | None  # (8,) int64 pixels of each part; None without given labels
  findings: tuple[Finding, ...]


class SplitInspection(NamedTuple):
  """A split, without what could not be read."""

  name: str
  images: int  # without junk
  junk: int
  distractors: int  # images of nobody in particular, counted in `images` too
  people: int
  cameras: int
  part_labels: int  # images with part labels that are right
  part_pixels: np.ndarray  # (8,) int64
  sizes_hw: np.ndarray  # (N, 2) int64 pixels, of readable images
  published: SplitCounts | None
  samples: tuple[FileSource, ...]  # some readable images


class Inspection(NamedTuple):
  """A data set."""

  splits: tuple[SplitInspection, ...]  # those that could be listed
  findings: tuple[Finding, ...]

  @property
  def can_train(self) -> bool:
    """Whether training would start."""
    return not any(finding.fault.stops_training for finding in self.findings)


Progress = Callable[[Sequence[FileSource], str], Iterable[FileSource]]


def inspect(
  builder: FileReidBuilder,
  manual_dir: Path,
  config: DataConfig,
  num_samples: int,
  progress: Progress = lambda sources, split: sources,
  camera_rule: str = _CROSS_CAMERA,
) -> Inspection:
  """Reads every file of a data set once.

  Args:
    builder: of the data set.
    manual_dir: folder that holds it.
    config: reads `identities_per_batch` and `images_per_identity`.
    num_samples: at most so many samples a split.
    progress: wraps the sources of a split, of a name, while they are read.
    camera_rule: `config.evaluation.camera_rule`, which says what a match is.
  """
  splits: dict[str, list[Inspected]] = {}
  findings = []
  for split in SPLITS:
    try:
      sources = builder.sources(split, manual_dir)
    except SourceError as error:
      findings.append(Finding(Fault.SPLIT, str(error)))
      continue
    for unused in builder.unused.get(split, ()):
      fault = Fault.LOST_PERSON if unused.is_person else Fault.UNUSED
      findings.append(Finding(fault, str(unused)))
    splits[split] = [_inspect_image(builder, source) for source in progress(sources, split)]
    findings += [finding for image in splits[split] for finding in image.findings]
  findings += _duplicates((image for images in splits.values() for image in images), camera_rule)
  if "train" in splits:
    findings += _sampling_faults(splits["train"], config)
  if "query" in splits and "gallery" in splits:
    findings += _unmatched(splits["query"], splits["gallery"], camera_rule)
  if not builder.NUMBERS_TEST_PEOPLE_ANEW:
    findings += _trained_on(splits)
  summaries = [_summarize(builder, name, images, num_samples) for name, images in splits.items()]
  return Inspection(tuple(summaries), tuple(findings))


def _inspect_image(builder: FileReidBuilder, source: FileSource) -> Inspected:
  findings, size_hw, digest, part_pixels = [], None, None, None
  try:
    builder.identify(source)
  except SourceError as error:
    findings.append(Finding(Fault.NAME, str(error)))
  try:
    image = builder.read_image(source)
  except SourceError as error:
    findings.append(Finding(Fault.IMAGE, str(error)))
    return Inspected(source, None, None, None, tuple(findings))
  size_hw, digest = image.size_hw, hashlib.blake2b(image.encoded, digest_size=16).digest()
  if image.turned:
    message = f"{source.image.file}: seen upright, {size_hw[0]} × {size_hw[1]} pixels"
    findings.append(Finding(Fault.TURNED, message + "; so must its part labels be"))
  if not _is_usual_size(*size_hw):
    message = f"{source.image.file}: {size_hw[0]} × {size_hw[1]} pixels (height × width)"
    findings.append(Finding(Fault.SIZE, message))
  try:
    labels = builder.read_part_labels(source, size_hw)
  except SourceError as error:
    fault = Fault.LABELS_MISSING if source.part_labels is None else Fault.LABELS
    findings.append(Finding(fault, str(error)))
  else:
    if source.part_labels is not None:
      labelled = image_files.decode_part_labels(labels)
      part_pixels = np.bincount(labelled.ravel(), minlength=NUM_PARTS)
  return Inspected(source, size_hw, digest, part_pixels, tuple(findings))


def _is_usual_size(height: int, width: int) -> bool:
  return (
    _HEIGHT_RANGE[0] <= height <= _HEIGHT_RANGE[1]
    and width >= _MIN_WIDTH
    and _ASPECT_RANGE[0] <= height / width <= _ASPECT_RANGE[1]
  )


def _duplicates(images: Iterable[Inspected], camera_rule: str) -> Iterator[Finding]:
  first: dict[bytes, FileSource] = {}
  for image in images:
    if image.digest is None:
      continue
    other = first.setdefault(image.digest, image.source)
    if other is not image.source:
      yield _duplicate(image.source, other, camera_rule)


def _duplicate(source: FileSource, other: FileSource, camera_rule: str) -> Finding:
  """Returns what is wrong when an image is the same file as one before it, or what is to know."""
  image, before = source.image, other.image
  same_person = image.person_id == before.person_id
  same_camera = image.camera_id == before.camera_id
  is_test = (other.split, source.split) == ("query", "gallery")
  if is_test and same_person and (same_camera or camera_rule != _CROSS_CAMERA):
    with_what = ", as all of its person's images from its camera"
    return Finding(
      Fault.IN_BOTH,
      f"{before.file}: in the gallery too, which is allowed; there this query ignores it"
      + with_what * (camera_rule == _CROSS_CAMERA),
    )
  message = f"{image.file}: the same file as {before.file}"
  if not same_person:
    message += ", of another person"
  elif is_test:
    message += ", from another camera, so that the query finds itself"
  return Finding(Fault.DUPLICATE, message)


def _sampling_faults(train: Sequence[Inspected], config: DataConfig) -> Iterator[Finding]:
  person_id = [image.source.image.person_id for image in train]
  people, counts = np.unique([p for p in person_id if p is not None], return_counts=True)
  if len(people) < config.identities_per_batch:
    yield Finding(
      Fault.FEW_PEOPLE,
      f"training has {len(people)} people, config.data.identities_per_batch is "
      f"{config.identities_per_batch}; set it to {len(people)} or fewer",
    )
  wanted = config.images_per_identity
  for person, count in zip(people, counts):
    if count < wanted:
      source = train[person_id.index(person)].source
      message = f"{source.image.file}: person {person} has {count} of {wanted} images a batch"
      yield Finding(Fault.FEW_IMAGES, message + "; they are repeated")


def _unmatched(
  query: Sequence[Inspected], gallery: Sequence[Inspected], camera_rule: str
) -> Iterator[Finding]:
  """Yields the queries without a match, which is another camera's image, or another image."""
  others = "from other cameras than theirs" if camera_rule == _CROSS_CAMERA else "beside themselves"
  if camera_rule == _CROSS_CAMERA:
    unknown = [image for image in (*query, *gallery) if _camera(image) == NO_CAMERA_ID]
    if unknown:
      yield Finding(
        Fault.NOTHING_MATCHES,
        f"{unknown[0].source.image.file}: its camera is unknown, and those of {len(unknown) - 1} "
        "more; set config.evaluation.camera_rule to 'ignore' or 'single_shot', which need none",
      )
      return
  searched = (*query, *gallery) if camera_rule == _SINGLE_SHOT else gallery
  places: dict[int, set] = {}
  for image in searched:
    if image.source.image.person_id not in (None, JUNK_PERSON_ID):
      places.setdefault(image.source.image.person_id, set()).add(_place(image, camera_rule))
  known = [image for image in query if None not in (image.source.image.person_id, _camera(image))]
  unmatched = [
    image.source.image
    for image in known
    if not places.get(image.source.image.person_id, set()) - {_place(image, camera_rule)}
  ]
  if known and len(unmatched) == len(known):
    yield Finding(
      Fault.NOTHING_MATCHES,
      f"{unmatched[0].file}: no query has a match, this one and {len(known) - 1} more; the gallery "
      f"needs images of the queries' people {others}",
    )
    return
  for image in unmatched:
    rest = (
      f"from another camera than {image.camera_id}"
      if camera_rule == _CROSS_CAMERA
      else "but itself"
    )
    yield Finding(
      Fault.NO_MATCH,
      f"{image.file}: the gallery has no image of person {image.person_id} {rest}; the query is "
      "left out of the results",
    )


def _camera(image: Inspected) -> int | None:
  return image.source.image.camera_id


def _place(image: Inspected, camera_rule: str) -> int | bytes | None:
  """Returns what two images of a match do not share: the camera, or the contents of the file."""
  return _camera(image) if camera_rule == _CROSS_CAMERA else image.digest


def _trained_on(splits: dict[str, list[Inspected]]) -> Iterator[Finding]:
  trained_on = {image.source.image.person_id for image in splits.get("train", ())} - {None}
  seen = set()
  for file, _, person_id, _ in (image.source.image for image in splits.get("query", ())):
    if person_id in trained_on and person_id not in seen:
      seen.add(person_id)
      yield Finding(Fault.TRAINED_ON, f"{file}: person {person_id} is in training too")


def _summarize(
  builder: FileReidBuilder, name: str, images: Sequence[Inspected], num_samples: int
) -> SplitInspection:
  readable = [image for image in images if image.size_hw is not None]
  person_id = [image.source.image.person_id for image in images]
  nobody = {None, JUNK_PERSON_ID, builder.DISTRACTOR_PERSON_ID if name != "train" else None}
  labelled = [image.part_pixels for image in images if image.part_pixels is not None]
  samples = np.unique(np.linspace(0, len(readable) - 1, num_samples).astype(int))
  return SplitInspection(
    name=name,
    images=len(images) - person_id.count(JUNK_PERSON_ID),
    junk=person_id.count(JUNK_PERSON_ID),
    distractors=sum(person in nobody - {None, JUNK_PERSON_ID} for person in person_id),
    people=len(set(person_id) - nobody),
    cameras=len({_camera(image) for image in images} - {None, NO_CAMERA_ID}),
    part_labels=len(labelled),
    part_pixels=np.sum(labelled, axis=0) if labelled else np.zeros(NUM_PARTS, np.int64),
    sizes_hw=np.array([image.size_hw for image in readable], np.int64).reshape(-1, 2),
    published=builder.published_counts().get(name),
    samples=tuple(readable[i].source for i in samples) if readable else (),
  )
