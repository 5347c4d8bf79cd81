"""Tables of images as spreadsheets and people write them."""

from pathlib import Path

import pytest

from magnifier_jax.data import dataset
from magnifier_jax.data.datasets.image_table import read_table
from magnifier_jax.data.records import NO_CAMERA_ID, SourceError
from tests.data.noise_tree import write_images

_ROWS = (("a.jpg", 1, 1, "train"), ("q.jpg", 2, 1, "query"), ("g.jpg", 2, 2, "gallery"))


def _write(root: Path, text: str, **options) -> Path:
  root.mkdir(parents=True, exist_ok=True)
  (root / "images.csv").write_text(text, **options)
  return root / "images.csv"


def _text(rows=_ROWS, delimiter: str = ",", heading: str = "image,person,camera,split") -> str:
  lines = [heading.split(","), *([str(cell) for cell in row] for row in rows)]
  return "\n".join(delimiter.join(cells) for cells in lines) + "\n"


def _config(make_config, **fields):
  fields = {"data__dataset": "image_list/mine", "data__missing_part_labels": "bands"} | fields
  return make_config(**fields).data


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_may_be_divided_as_the_country_has_it(tmp_path, delimiter, encoding):
  heading = " Image,remark,Person,CAMERA,split"
  rows = [(row[0], '"of, both; kinds"', *row[1:]) for row in _ROWS]
  table = _write(tmp_path, _text(rows, delimiter, heading), encoding=encoding)
  listed = {split: [i[1:] for i in images] for split, images in read_table(table).items()}
  assert listed == {row[-1]: [row[:3]] for row in _ROWS}


def test_a_table_may_lack_cameras(tmp_path):
  rows = [(*row[:2], row[3]) for row in _ROWS]
  table = _write(tmp_path, _text(rows, heading="image,person,split"))
  listed = {split: [i[1:] for i in images] for split, images in read_table(table).items()}
  assert listed == {row[-1]: [(*row[:2], NO_CAMERA_ID)] for row in _ROWS}


def test_some_cameras_may_be_unknown(tmp_path):
  listed = read_table(_write(tmp_path, _text([*_ROWS, ("x.jpg", 4, "", "train")])))
  assert [image.camera_id for image in listed["train"]] == [1, NO_CAMERA_ID]


@pytest.mark.parametrize("text", ["", "a.jpg,1,1,train\n", "image|person|camera|split\n"])
def test_a_table_without_its_heading_is_named_with_its_first_line(tmp_path, text):
  table = _write(tmp_path, text)
  with pytest.raises(SourceError, match=r"column 'image' missing; .*commas, semicolons") as error:
    read_table(table)
  assert repr(text.strip()) in str(error.value)


@pytest.mark.parametrize(
  ("row", "message"),
  [
    (("", 1, 1, "train"), "line 5: no image is named"),
    (("x.jpg", 1), "line 5: split '' is none of"),
    (("x.jpg", "9" * 5000, 1, "train"), "line 5: person '999.* must be whole numbers"),
    (("a.jpg", 1, 1, "train"), "line 5: image 'a.jpg' is listed twice, in train and train; only"),
    (("a.jpg", 1, 1, "query"), "line 5: image 'a.jpg' is listed twice, in train and query; only"),
    (("q.jpg", 2, 2, "gallery"), "line 5: .* is of person 2 and camera 2, but 2 and 1 above"),
    (("q.jpg", 3, 1, "gallery"), "line 5: .* is of person 3 and camera 1, but 2 and 1 above"),
  ],
)
def test_a_wrong_row_is_named(tmp_path, row, message):
  table = _write(tmp_path, _text((*_ROWS, row)))
  with pytest.raises(SourceError, match=message) as error:
    read_table(table)
  assert str(error.value).startswith(str(table))


def test_an_image_may_be_query_and_gallery_but_once_each(tmp_path):
  both = ("q.jpg", 2, 1, "gallery")
  images = read_table(_write(tmp_path, _text((*_ROWS, both))))
  assert images["gallery"][1] == images["query"][0]
  table = _write(tmp_path, _text((*_ROWS, both, ("q.jpg", 2, 1, "query"))))
  with pytest.raises(SourceError, match=r"line 6: .*twice, in query and gallery and query"):
    read_table(table)


def test_paths_may_begin_with_the_home(make_config, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  write_images(tmp_path / "home" / "crops", [row[0] for row in _ROWS])
  _write(tmp_path / "home" / "mine", _text([(f"~/crops/{row[0]}", *row[1:]) for row in _ROWS]))
  data = dataset.load(_config(make_config, data__manual_dir="~"))
  assert [len(split) for split in (data.train, data.query, data.gallery)] == [1, 1, 1]


def test_a_changed_table_is_read_again(make_config, tmp_path):
  write_images(tmp_path / "mine", ["a.jpg", "b.jpg", "q.jpg", "g.jpg"])
  _write(tmp_path / "mine", _text())
  builder = dataset.find_builder(_config(make_config))
  assert len(builder.list_images("train", tmp_path)) == 1
  _write(tmp_path / "mine", _text((*_ROWS, ("b.jpg", 1, 2, "train"))))
  assert len(builder.list_images("train", tmp_path)) == 2
