"""Which network a table of accuracies is of, who chose it, and on whom it was measured."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from magnifier_jax.config import Config
from magnifier_jax.report.published import PublishedTable, published_table
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
  """

  settings: Mapping[str, Any]
  step: int | None
  planned_steps: int
  validation_people: int
  chosen_on: str

  @property
  def flip(self) -> bool:
    """Whether the embedding of the mirror image was added."""
    return self.settings["evaluation"]["flip"]

  def head(self) -> dict[str, Any]:
    """Returns what `metrics.json` says beside the accuracies."""
    return {
      "config": self.settings["name"],
      "dataset": self.settings["data"]["dataset"],
      "step": self.step,
      "flip": self.flip,
      "validation_people": self.validation_people,
      "checkpoint_chosen_on": self.chosen_on,
    }

  def people(self) -> str:
    """Returns whom accuracies were measured on: the data set, and which of its people."""
    people = (
      f"{self.validation_people} {VALIDATION_PEOPLE}" if self.validation_people else TEST_PEOPLE
    )
    return f"{self.settings['data']['dataset']}, {people}"

  def published(self) -> PublishedTable:
    """Returns the published accuracies that may stand beside these."""
    return published_table(self.settings["data"]["dataset"], self.validation_people)

  def notes(self) -> list[str]:
    """Returns what a reader of the accuracies must know, a sentence each."""
    return [
      *_notes_on_people(self.validation_people, self.settings["data"].get("validation_people", 0)),
      *_notes_on_choice(self.chosen_on, self.validation_people),
    ]


def provenance(config: Config, record: RunRecord, step: int, chosen: bool) -> Provenance:
  """Returns where the accuracies of a checkpoint come from.

  Args:
    config: of the evaluation.
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


def _notes_on_people(people: int, held_back: int) -> list[str]:
  if not people:
    return []
  note = f"Measured on {people} training people (config.data.validation_people), not on the test"
  note += " people: published numbers are not comparable."
  if people > held_back:
    note += f" Training held back {held_back or 'none'} of them, so the network knows the others."
  return [note]


def _notes_on_choice(chosen_on: str, validation_people: int) -> list[str]:
  if not chosen_on:
    return []
  note = f"The {chosen_on} chose this checkpoint (config.evaluation.checkpoint=best)"
  measured_on = VALIDATION_PEOPLE if validation_people else TEST_PEOPLE
  if chosen_on == measured_on:
    return [f"{note}, so that its accuracy on them is too high; say so when you publish it."]
  return [f"{note}."]
