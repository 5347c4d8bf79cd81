"""Processes of the two sides: what they answer, and how they fail."""

from collections.abc import Iterator

import pytest

from benchmarks.comparison import alternate
from benchmarks.embed_files import Turn, take_turns
from benchmarks.worker import SideError, Worker
from magnifier_jax.errors import UserError

FACTORY = "tests.benchmarks.fake_sides:FakeSide"


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Worker]]:
  workers = [Worker(str(s), FACTORY, s, environment={"SIDE": str(s)}) for s in (0.01, 0.02)]
  yield workers
  for worker in workers:
    worker.close()


def test_a_side_has_its_own_environment_and_neither_framework(workers: list[Worker]):
  assert [worker.call("environment", "SIDE") for worker in workers] == ["0.01", "0.02"]
  assert not {"jax", "torch", "tensorflow"} & set(workers[0].call("modules"))


def test_sides_take_turns_and_rest_in_between(workers: list[Worker]):
  ours, theirs = alternate(workers, rounds=2, steps=5)
  assert [lap.seconds for lap in ours.laps + theirs.laps] == [0.01, 0.01, 0.02, 0.02]
  assert ours.seconds == 0.01
  assert theirs.cpu_seconds == pytest.approx(0.02, rel=0.3)
  # The sides computed for 0.12 and 0.24 s.
  assert 0 <= ours.idle_cpu_seconds < 0.05
  assert 0 <= theirs.idle_cpu_seconds < 0.05


def test_any_number_of_turns_are_taken_in_both_orders(workers: list[Worker]):
  turns = [Turn("a", "", workers[0], "lap"), Turn("b", "", workers[1], "lap")] * 2
  laps = take_turns(turns, rounds=2, batches=3)
  assert [[lap.seconds for lap in own] for own in laps] == [[0.01] * 2, [0.02] * 2] * 2


def test_what_a_user_can_mend_arrives_as_it_was(workers: list[Worker]):
  with pytest.raises(UserError, match=r"^mend this$"):
    workers[0].call("refuse")


def test_other_errors_bring_their_traceback(workers: list[Worker]):
  with pytest.raises(SideError, match=r"(?s)0\.01 failed:.*AttributeError: .*no_such_method"):
    workers[0].call("no_such_method")


def test_a_process_that_ends_is_an_error_with_its_exit_code():
  with (
    Worker("PyTorch", FACTORY, 0.01) as worker,
    pytest.raises(SideError, match="PyTorch ended: exit code 3"),
  ):
    worker.call("leave")
