"""Agreement with the authors' PyTorch implementation, on the numbers in `tests/reference`."""

import contextlib
import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import pytest
from flax import traverse_util

from magnifier_jax.interop.state_dict import entry

from . import golden_numbers
from .default_path import default_path
from .golden_numbers import FULL64, SMALL32, SMALL64, Deviation, Ours

COMPILES_AS_USERS_DO = True  # see conftest.py


class Case(NamedTuple):
  """What to compute, and in which form."""

  numbers: golden_numbers.Case
  on_default_path: bool = False  # that of accelerators


FLOAT64_CASES = [
  pytest.param(Case(SMALL64), id="128x64-float64"),
  # tests/models/test_platforms.py compares the two paths operation by operation.
  pytest.param(Case(SMALL64, True), id="128x64-float64-default-path", marks=pytest.mark.slow),
  pytest.param(Case(FULL64), id="384x192-float64", marks=pytest.mark.slow),
]
# The same formulas, on rounded numbers.
CASES = [*FLOAT64_CASES, pytest.param(Case(SMALL32), id="128x64-float32", marks=pytest.mark.slow)]


@functools.cache
def compute(case: Case) -> Ours:
  path = default_path() if case.on_default_path else contextlib.nullcontext()
  with jax.enable_x64(case.numbers.dtype == "float64"), path:
    return golden_numbers.compute(case.numbers)


def check(deviations: Iterable[Deviation], count: int) -> None:
  deviations = list(deviations)
  assert len(deviations) == count
  # Not >: a number that is none is neither.
  wrong = [deviation for deviation in deviations if not deviation.found <= deviation.allowed]
  assert not wrong


@pytest.mark.parametrize("case", CASES)
def test_embeddings_features_and_logits(case: Case):
  check(golden_numbers.output_deviations(case.numbers, compute(case)), 10)


@pytest.mark.parametrize("case", CASES)
def test_losses_before_each_update(case: Case):
  updates = 3 if case.numbers.dtype == "float64" else 1
  check(golden_numbers.loss_deviations(case.numbers, compute(case)), 11 * updates)


@pytest.mark.parametrize("case", CASES)
def test_gradient_norm_of_every_parameter(case: Case):
  check(golden_numbers.gradient_deviations(case.numbers, compute(case)), 220)


@pytest.mark.parametrize("case", CASES)
def test_running_statistics_after_one_forward(case: Case):
  ours = compute(case)
  check(golden_numbers.statistics_deviations(case.numbers, ours), len(ours.statistics))


@pytest.mark.parametrize("case", FLOAT64_CASES)
def test_embedding_after_three_updates(case: Case):
  check(golden_numbers.update_deviations(case.numbers, compute(case)), 1)


def test_every_parameter_has_its_own_entry_in_the_reference():
  shapes = golden_numbers.create_fixture_trainer(SMALL32).init.eval_shape(0)
  arrays = traverse_util.flatten_dict(shapes.params) | traverse_util.flatten_dict(
    shapes.batch_stats
  )
  names = [name for path in arrays for name in entry(path).names]
  reference = golden_numbers.fixture.state_dict()
  expected = [name for name in reference if not name.endswith("num_batches_tracked")]
  assert sorted(names) == sorted(expected)
