"""What is said of where a run's numbers come from."""

from typing import Any

import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config
from magnifier_jax.report.provenance import Provenance, provenance, unknown_provenance
from magnifier_jax.workdir.checkpoints import run_record

CHOSEN = "The {} chose this checkpoint (config.evaluation.checkpoint=best)"
FLATTERED = CHOSEN + ", so that its accuracy on them is too high; say so when you publish it."


def make_config(**changes: Any) -> Config:
  config = get_config("small")
  config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
  return Config.from_config_dict(config)


def of_run(held_back: int, measured: int, chosen: bool) -> Provenance:
  record = run_record(make_config(data__validation_people=held_back), 767 - held_back, 10)
  return provenance(make_config(data__validation_people=measured), record, 40, chosen)


def test_the_newest_checkpoint_on_the_test_people_needs_no_word():
  source = of_run(0, 0, chosen=False)
  assert source.notes() == []
  assert source.published().rows["all"] == (82.4, 79.6)
  assert source.head() == {
    "config": "cuhk03_small",
    "dataset": "cuhk03_np/labeled",
    "trained_on": "cuhk03_np/labeled",
    "step": 40,
    "flip": False,
    "camera_rule": "cross_camera",
    "validation_people": 0,
    "checkpoint_chosen_on": "",
  }


def test_the_test_people_may_have_chosen_the_checkpoint():
  source = of_run(0, 0, chosen=True)
  assert source.notes() == [FLATTERED.format("test people")]
  assert source.head()["checkpoint_chosen_on"] == "test people"


def test_validation_people_may_have_chosen_what_the_test_people_measure():
  source = of_run(100, 0, chosen=True)
  assert source.notes() == [f"{CHOSEN.format('validation people')}."]
  assert source.published().rows


@pytest.mark.parametrize("chosen", [False, True])
def test_validation_people_stand_beside_nothing_published(chosen: bool):
  source = of_run(100, 100, chosen)
  first, *others = source.notes()
  assert first.startswith("Measured on 100 training people (config.data.validation_people), not on")
  assert "Training held back" not in first
  assert others == ([FLATTERED.format("validation people")] if chosen else [])
  assert not source.published().rows
  assert source.head()["validation_people"] == 100


def test_people_that_the_network_has_seen_are_no_validation():
  [note] = of_run(0, 100, chosen=False).notes()
  assert note.endswith("Training held back none of them, so the network knows the others.")


def test_settings_are_those_of_the_training_and_of_this_evaluation():
  record = run_record(make_config(training__num_epochs=4, data__validation_people=9), 758, 10)
  config = make_config(training__num_epochs=600, evaluation__flip=True)
  source = provenance(config, record, 30, chosen=False)
  assert source.settings["training"]["num_epochs"] == 4
  assert source.settings["data"]["validation_people"] == 9
  assert (source.flip, source.planned_steps) == (True, 40)


def test_a_training_that_ends_with_its_newest_step_was_not_chosen():
  config = make_config(evaluation__checkpoint="best")
  source = provenance(config, run_record(config, 767, 10), 80, chosen=False)
  assert source.settings["evaluation"]["checkpoint"] == "latest"


def test_embeddings_that_say_nothing_are_what_the_config_says():
  source = unknown_provenance(make_config(data__validation_people=5))
  assert (source.step, source.validation_people, source.chosen_on) == (None, 5, "")


def test_who_chose_the_checkpoint_of_other_data_does_not_flatter_it():
  record = run_record(make_config(), 767, 10)
  config = make_config(data__dataset="market1501", data__validation_people=20)
  source = provenance(config, record, 40, chosen=True)
  assert source.notes() == [
    "Trained on cuhk03_np/labeled, tested on market1501.",
    "Measured on 20 training people (config.data.validation_people), not on the test people: "
    "published numbers are not comparable.",
    CHOSEN.format("test people of cuhk03_np/labeled") + ".",
  ]
  assert not source.published().rows


def test_one_of_several_data_sets_is_other_data_whose_people_are_known():
  both = ("cuhk03_np/labeled", "market1501")
  record = run_record(make_config(data__dataset=str(both)), 1518, 10)
  config = make_config(data__dataset="market1501", data__validation_people=20)
  first, people, choice = provenance(config, record, 40, chosen=True).notes()
  assert first == "Trained on cuhk03_np/labeled + market1501, tested on market1501."
  assert people.endswith("Training held back none of them, so the network knows the others.")
  assert choice == CHOSEN.format("test people of cuhk03_np/labeled + market1501") + "."
