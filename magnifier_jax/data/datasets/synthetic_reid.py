"""The embedded data set: drawn pedestrians, so that everything runs without a download."""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from magnifier_jax.data.datasets.reid_builder import ReidBuilder
from magnifier_jax.data.records import Record
from magnifier_jax.data.synthetic import appearance as pedestrian_appearance
from magnifier_jax.data.synthetic import body as pedestrian_body
from magnifier_jax.data.synthetic import cameras as synthetic_cameras
from magnifier_jax.data.synthetic import pedestrians
from magnifier_jax.data.synthetic.cameras import CAMERAS
from magnifier_jax.data.synthetic.pedestrians import draw_pedestrian

_DRAWING_CODE = (
  Path(__file__),
  *(
    Path(module.__file__)
    for module in (pedestrian_appearance, pedestrian_body, pedestrians, synthetic_cameras)
  ),
)


@dataclasses.dataclass(eq=False, kw_only=True)
class SyntheticReidConfig(tfds.core.BuilderConfig):
  """How much is drawn. Training and test people differ; every camera sees everybody."""

  training_people: int
  test_people: int
  cameras: int  # the first ones of `CAMERAS`
  images_per_camera: int  # of each person; of test people the first is a query
  seed: int = 0

  def __post_init__(self):
    if not 2 <= self.cameras <= len(CAMERAS):
      raise ValueError(f"cameras: must be from 2 to {len(CAMERAS)}, got {self.cameras}")
    if self.images_per_camera < 2:
      raise ValueError("images_per_camera: must be at least 2, a query and a gallery image")


class Shot(NamedTuple):
  """Which picture to draw."""

  split: str
  person_id: int
  camera: int  # index into `CAMERAS`
  number: int


class SyntheticReid(ReidBuilder):
  """Procedurally drawn pedestrians with exact part labels. Nobody in it is real."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = [  # noqa: RUF012 - TFDS wants a list
    SyntheticReidConfig(
      name="small",
      description="For the demo and for tests of the whole chain on a CPU.",
      training_people=120,
      test_people=60,
      cameras=3,
      images_per_camera=4,
    ),
    SyntheticReidConfig(
      name="large",
      description="Six cameras and as many people as CUHK03-NP has in training.",
      training_people=767,
      test_people=200,
      cameras=6,
      images_per_camera=4,
    ),
  ]

  def sources(self, split: str, manual_dir: Path | None) -> Sequence[Shot]:
    del manual_dir  # nothing of the user's is read
    config = self.builder_config
    first_test = 1 + config.training_people
    people, numbers = {
      "train": (range(1, first_test), range(config.images_per_camera)),
      "query": (range(first_test, first_test + config.test_people), range(1)),
      "gallery": (
        range(first_test, first_test + config.test_people),
        range(1, config.images_per_camera),
      ),
    }[split]
    return [
      Shot(split, person_id, camera, number)
      for person_id in people
      for camera in range(config.cameras)
      for number in numbers
    ]

  def recipe(self) -> str:
    # The code is all that the pictures come from, so a copy drawn by other code is stale.
    code = hashlib.sha256(b"".join(file.read_bytes() for file in _DRAWING_CODE)).hexdigest()
    return f"{code}, seed {self.builder_config.seed}"

  def read_record(self, source: Shot) -> Record:
    drawn = draw_pedestrian(
      self.builder_config.seed, source.person_id, source.camera, source.number
    )
    camera_id = source.camera + 1
    name = f"{source.person_id:04d}_c{camera_id}_{source.number + 1}.jpg"
    return Record(
      image=_encode(drawn.image, "JPEG", quality=92),
      part_labels=_encode(drawn.part_labels, "PNG"),
      person_id=source.person_id,
      camera_id=camera_id,
      path=f"{source.split}/{name}",
    )


def _encode(pixels: np.ndarray, file_format: str, **options: int) -> bytes:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, file_format, **options)
  return file.getvalue()
