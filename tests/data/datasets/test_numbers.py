"""Person and camera numbers that int32 cannot hold are refused, wherever they come from.

Those of `cuhk-03.mat` are tested with the file.
"""

import dataclasses
from pathlib import Path

import pytest

from magnifier_jax.data import dataset, inspection
from magnifier_jax.data.inspection import Fault
from magnifier_jax.data.records import SourceError
from tests.data.noise_tree import write_images

_LARGE = 2**32 + 7


def _write_names(root: Path, person: int, camera: int) -> str:
  name = f"train/{person}_c{camera}_1.jpg"
  write_images(root / "mine", [name, "query/0007_c1.jpg", "gallery/0007_c2.jpg"])
  return "image_list/mine"


def _write_table(root: Path, person: int, camera: int) -> str:
  write_images(root / "mine", ["a.jpg", "q.jpg", "g.jpg"])
  rows = f"image,person,camera,split\na.jpg,{person},{camera},train\nq.jpg,1,1,query\n"
  (root / "mine" / "images.csv").write_text(f"{rows}g.jpg,1,2,gallery\n")
  return "image_list/mine"


def _write_lists(root: Path, person: int, camera: int) -> str:
  lists = {
    "train": f"0000/0000_000_{camera}_x.jpg {person}",
    "query": "0000/0000_000_01_x.jpg 0",
    "gallery": "0000/0000_001_02_x.jpg 0",
  }
  for split, line in lists.items():
    folder = "train" if split == "train" else "test"
    write_images(root / "MSMT17_V1", [f"{folder}/{line.split()[0]}"])
    (root / "MSMT17_V1" / f"list_{split}.txt").write_text(line)
  return "msmt17/v1"


@pytest.mark.parametrize(("person", "camera"), [(_LARGE, 1), (1, _LARGE), (2**31, 1), (10**30, 1)])
@pytest.mark.parametrize("write", [_write_names, _write_table, _write_lists])
def test_large_numbers_are_refused_in_one_line(make_config, tmp_path, write, person, camera):
  name = write(tmp_path, person, camera)
  config = make_config(data__dataset=name, data__missing_part_labels="bands").data
  what = f"person {person}" if person > 1 else f"camera {camera}"
  with pytest.raises(SourceError, match=f"{what} is too large; numbers go up to 2147483647"):
    dataset.load(config)
  config = dataclasses.replace(config, identities_per_batch=1)
  result = inspection.inspect(dataset.find_builder(config), tmp_path, config, 1)
  assert [f.fault for f in result.findings if f.fault.stops_training] == [Fault.NAME]


@pytest.mark.parametrize("write", [_write_names, _write_table, _write_lists])
def test_the_largest_number_is_read(make_config, tmp_path, write):
  name = write(tmp_path, 2**31 - 1, 2**31 - 1)
  config = make_config(data__dataset=name, data__missing_part_labels="bands")
  assert dataset.load(config.data).train.camera_id.tolist() == [2**31 - 1]
