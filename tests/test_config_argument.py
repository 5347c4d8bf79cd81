"""`--config`: where the file is found, which value of a field counts, and misspelt names."""

import sys
from pathlib import Path

import pytest

from magnifier_jax.config import ConfigError
from magnifier_jax.config_argument import load_config, normalized
from magnifier_jax.files.own_configs import configs_folder

CUHK03 = "configs/cuhk03.py:small"


@pytest.mark.parametrize(
  ("first", "last", "value"),
  [
    ("optimizer.decay_epochs=40,70", "optimizer.decay_epochs=20", (20,)),
    ("optimizer.decay_epochs=20", "optimizer.decay_epochs=40,70", (40, 70)),
    ("data.image_size_hw=64,32", "data.image_size_hw=96,32", (96, 32)),
    ("data.pixel_mean=1.,2.,3.", "data.pixel_mean=4.,5.,6.", (4.0, 5.0, 6.0)),
    ("data.pixel_std=1.,2.,3.", "data.pixel_std=4.,5.,6.", (4.0, 5.0, 6.0)),
    ("data.augmentation.erasing_area=.1,.2", "data.augmentation.erasing_area=.3,.4", (0.3, 0.4)),
    ("training.num_epochs=3", "training.num_epochs=4", 4),
  ],
)
def test_the_last_value_of_a_field_counts(first: str, last: str, value: tuple | int):
  field = last.partition("=")[0]
  for argument in (f"--config.{last}", f"-config.{last}"):
    config = load_config(CUHK03, [f"--config.{first}", "--config.seed=5", argument])
    found = config
    for name in field.split("."):
      found = getattr(found, name)
    assert found == value
    assert config.seed == 5


def test_a_value_may_follow_its_option():
  arguments = ["--config.optimizer.decay_epochs", "40,70", "--config.optimizer.decay_epochs", "20"]
  assert load_config(CUHK03, arguments).optimizer.decay_epochs == (20,)
  assert normalized(["tool", "--mode", "train", *arguments]) == [
    *("tool", "--mode", "train"),
    *arguments[2:],
  ]


def test_a_switch_and_its_negation_are_one_field():
  arguments = ["--config.evaluation.flip", "--noconfig.evaluation.flip"]
  assert load_config(CUHK03, arguments).evaluation.flip is False
  assert load_config(CUHK03, arguments[::-1]).evaluation.flip is True


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    (
      "--config.optimiser.learning_rate=1",
      "config.optimiser: no such field; did you mean optimizer?",
    ),
    ("--config.optimiser=1", "config.optimiser: no such field; did you mean optimizer?"),
    ("--config.optimizer.learning_rat=1", "config.optimizer.learning_rat: no such field; did you"),
    ("--config.data.augmentations.flip_probability=1", "config.data.augmentations: no such field"),
    ("--config.seed.x=1", "config.seed: a value, which has no field x"),
    ("--config.qqq.zzz=1", "config.qqq: no such field; it has name, seed"),
    ("--noconfig.evaluation.flap", "config.evaluation.flap: no such field; did you mean flip?"),
    ("--config.optimizer.decay_epochs[0]=1", r"config.optimizer.decay_epochs\[0\]: no such field"),
    ("--config.optimizer=1", "Failed to parse '1' as a ConfigDict"),
  ],
)
def test_a_wrong_name_is_one_line(argument: str, message: str):
  with pytest.raises(ConfigError, match=message) as caught:
    load_config(CUHK03, [argument])
  assert "\n" not in str(caught.value)


def test_own_configs_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  monkeypatch.chdir(tmp_path)
  assert load_config("configs/market1501.py:small", []).name == "market1501_small"


def test_a_config_that_lies_here_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  mine = tmp_path / "configs" / "cuhk03.py"
  mine.parent.mkdir()
  mine.write_text((configs_folder() / "cuhk03.py").read_text().replace('"cuhk03"', '"mine"'))
  monkeypatch.chdir(tmp_path)
  assert load_config("configs/cuhk03.py", []).name == "mine"


def test_a_file_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "my.py").write_text((configs_folder() / "cuhk03.py").read_text())
  assert load_config("~/my.py:small", []).name == "cuhk03_small"


@pytest.mark.parametrize(
  "file", ["configs/nope.py", "main.py", "/nowhere/cuhk03.py", "../cuhk03.py"]
)
def test_a_file_that_is_not_there_is_named_with_ours(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ConfigError, match=rf"there is no file {file}; ours are configs/cuhk03.py, "):
    load_config(f"{file}:small", [])


def test_the_command_line_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
  flags = tmp_path / "flags"
  flags.write_text("--config.optimizer.decay_epochs=40,70\n")
  arguments = ["main", f"--config={CUHK03}", f"--flagfile={flags}"]
  arguments += ["--config.optimizer.decay_epochs=20", "--mode=evaluate"]
  monkeypatch.setattr(sys, "argv", arguments)
  from magnifier_jax import main

  main._parse_flags(arguments)
  assert main._CONFIG.value.optimizer.decay_epochs == (20,)
  assert main._MODE.value == "evaluate"
