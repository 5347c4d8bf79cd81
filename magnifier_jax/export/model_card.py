"""The model card: `README.md` of an exported folder, for people."""

from collections.abc import Mapping
from typing import Any

import jinja2

from magnifier_jax.evaluation.thresholds import of_each
from magnifier_jax.export.layout import ONNX_FILE

_SHOWN = ("rank1", "rank5", "mAP", "mINP")


def render(description: Mapping[str, Any]) -> str:
  """Returns the card of what a `model.json` describes, in Markdown."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("magnifier_jax.export"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  data = description["config"]["data"]
  runtime = "onnxruntime" if ONNX_FILE in description["files"] else "jax"
  measured = [description["metrics"], *description["tested_on"].values()]
  thresholds = description["thresholds"]
  return environment.get_template("model_card.md").render(
    model=description,
    packages=f"{runtime} pillow numpy",
    batch_size=data["identities_per_batch"] * data["images_per_identity"],
    measured=[
      {"on": metrics, "people": _people(metrics), "rows": _rows(metrics)}
      for metrics in measured
      if metrics
    ],
    calibrated=[found for found in of_each(thresholds or {}) if found.get("whole")],
  )


def _rows(metrics: Mapping[str, Any]) -> dict[str, dict[str, str]]:
  """Returns {row: {metric: percent}} of the rows that were measured."""
  return {
    name: {metric: _percent(row.get(metric)) for metric in _SHOWN}
    for name, row in metrics.items()
    if isinstance(row, dict)
  }


def _percent(fraction: float | None) -> str:
  return "–" if fraction is None else f"{100 * fraction:.1f}"


def _people(metrics: Mapping[str, Any]) -> str:
  validation = metrics.get("validation_people")
  return f"{validation} people held back from training" if validation else "test people"
