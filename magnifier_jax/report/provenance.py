"""Which network a table of accuracies is of, who chose it, and on whom it was measured."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from magnifier_jax.config import Config, EvaluationConfig
from magnifier_jax.evaluation.protocol import CROSS_CAMERA, SINGLE_SHOT, rule_in_words
from magnifier_jax.report.published import PublishedTable, joined_names, published_table
from magnifier_jax.workdir.checkpoints import RunRecord

TEST_PEOPLE = "test people"
VALIDATION_PEOPLE = "validation people"


class Provenance(NamedTuple):
  """Where accuracies come from.

  Attributes:
    settings: nested config: how the run was trained, and how it was evaluated.
    step: updates done; None where it is not known.
    planned_steps: updates of the whole run; 0 for weights that were not trained here, or where it
      is not known.
    validation_people: how many training people it was measured on; 0 for the test people.
    chosen_on: whose mAP chose the checkpoint among all: `TEST_PEOPLE`, `VALIDATION_PEOPLE`, or ''
      for the newest one, which nobody chose.
    tested_on: the data set that it was measured on; '' for the one that it was trained on.
    dtype: of the evaluation's arithmetic; '' for that of the training.
  """

  settings: Mapping[str, Any]
  step: int | None
  planned_steps: int
  validation_people: int
  chosen_on: str
  tested_on: str = ""
  dtype: str = ""

  @property
  def trained_on(self) -> str | Sequence[str]:
    """The data set that the run was trained on; of several, all."""
    return self.settings["data"]["dataset"]

  @property
  def test_set(self) -> str:
    """The data set that it was measured on."""
    return self.tested_on or joined_names(self.trained_on)

  @property
  def on_other_data(self) -> bool:
    """Whether it was trained on another data set than it was measured on, or on others too."""
    return self.test_set != self.trained_on

  @property
  def flip(self) -> bool:
    """Whether the embedding of the mirror image was added."""
    return self.settings["evaluation"]["flip"]

  @property
  def camera_rule(self) -> str:
    """Which rule about cameras it was measured by."""
    return self.settings["evaluation"].get("camera_rule", CROSS_CAMERA)

  def rule(self) -> str:
    """Returns that rule as a sentence."""
    draws = self.settings["evaluation"].get("single_shot_draws", 0)
    return rule_in_words(self.camera_rule, draws)

  def ranked_by(self, config: EvaluationConfig) -> "Provenance":
    """Returns this for saved embeddings that are ranked by another rule."""
    ranking = {"camera_rule": config.camera_rule, "single_shot_draws": config.single_shot_draws}
    evaluation = {**self.settings["evaluation"], **ranking}
    return self._replace(settings={**self.settings, "evaluation": evaluation})

  def head(self) -> dict[str, Any]:
    """Returns what `metrics.json` says beside the accuracies."""
    draws = {"single_shot_draws": self.settings["evaluation"].get("single_shot_draws")}
    return {
      "config": self.settings["name"],
      "dataset": self.test_set,
      "trained_on": self.trained_on,
      "step": self.step,
      "flip": self.flip,
      "camera_rule": self.camera_rule,
      "validation_people": self.validation_people,
      "checkpoint_chosen_on": self.chosen_on,
    } | (draws if self.camera_rule == SINGLE_SHOT else {})

  def people(self) -> str:
    """Returns whom accuracies were measured on: the data set, and which of its people."""
    people = (
      f"{self.validation_people} {VALIDATION_PEOPLE}" if self.validation_people else TEST_PEOPLE
    )
    return f"{self.test_set}, {people}"

  def published(self) -> PublishedTable:
    """Returns the published accuracies that may stand beside these."""
    return published_table(self.test_set, self.validation_people, self.trained_on, self.camera_rule)

  def notes(self) -> list[str]:
    """Returns what a reader of the accuracies must know, a sentence each."""
    return [
      *self._notes_on_data(),
      *self._notes_on_people(),
      *self._notes_on_choice(),
    ]

  def _notes_on_data(self) -> list[str]:
    notes = []
    if self.on_other_data:
      notes.append(f"Trained on {joined_names(self.trained_on)}, tested on {self.test_set}.")
    trained_in = self.settings.get("dtype", self.dtype)
    if self.dtype not in ("", trained_in):
      notes.append(f"Evaluated in {self.dtype}, trained in {trained_in}.")
    return notes

  def _notes_on_people(self) -> list[str]:
    people = self.validation_people
    if not people:
      return []
    note = f"Measured on {people} training people (config.data.validation_people), not on the test"
    note += " people: published numbers are not comparable."
    held_back = self.settings["data"].get("validation_people", 0)
    if self._knows_training_people and people > held_back:
      note += f" Training held back {held_back or 'none'} of them, so the network knows the others."
    return [note]

  @property
  def _knows_training_people(self) -> bool:
    trained_on = self.trained_on
    return self.test_set in ((trained_on,) if isinstance(trained_on, str) else trained_on)

  def _notes_on_choice(self) -> list[str]:
    if not self.chosen_on:
      return []
    whose = f" of {joined_names(self.trained_on)}" if self.on_other_data else ""
    note = f"The {self.chosen_on}{whose} chose this checkpoint (config.evaluation.checkpoint=best)"
    measured_on = VALIDATION_PEOPLE if self.validation_people else TEST_PEOPLE
    if self.chosen_on == measured_on and self._knows_training_people:
      return [f"{note}, so that its accuracy on them is too high; say so when you publish it."]
    return [f"{note}."]


def provenance(config: Config, record: RunRecord, step: int, chosen: bool) -> Provenance:
  """Returns where the accuracies of a checkpoint come from.

  Args:
    config: of the evaluation, with one data set.
    record: of the run, which may have been trained with other settings of those that may change.
    step: of the checkpoint.
    chosen: whether it was chosen by its mAP; the newest was not.
  """
  evaluation = config.to_dict()["evaluation"] | {"checkpoint": "best" if chosen else "latest"}
  chosen_on = VALIDATION_PEOPLE if record.config["data"].get("validation_people") else TEST_PEOPLE
  return Provenance(
    settings=record.config | {"evaluation": evaluation},
    step=step,
    planned_steps=record.steps_per_epoch * record.config["training"]["num_epochs"],
    validation_people=config.data.validation_people,
    chosen_on=chosen_on if chosen else "",
    tested_on=config.data.dataset,
    dtype=config.dtype,
  )


def unknown_provenance(config: Config) -> Provenance:
  """Returns what is known of embeddings that say nothing of themselves."""
  return Provenance(
    settings=config.to_dict(),
    step=None,
    planned_steps=0,
    validation_people=config.data.validation_people,
    chosen_on="",
  )
