"""Size and times of files, and their contents."""

import hashlib
import os

import numpy as np
import pytest

from magnifier_jax.data.prepared import file_states


def test_size_and_times_of_files_and_of_one_that_is_not_there(tmp_path):
  file = tmp_path / "a"
  file.write_bytes(b"12345")
  found = file.stat()
  states = file_states.look([str(file), str(tmp_path / "b")])
  assert states.tolist() == [[5, found.st_mtime_ns, found.st_ctime_ns], [-1, -1, -1]]


def test_a_file_whose_time_was_set_back_differs(tmp_path):
  file = tmp_path / "a"
  file.write_bytes(b"old")
  before, times = file_states.look([str(file)]), file.stat()
  file.write_bytes(b"new")
  os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
  after = file_states.look([str(file)])
  assert after[0, :2].tolist() == before[0, :2].tolist()
  assert file_states.differing(before, after).tolist() == [0]


def test_states_of_files_that_were_just_written_match_nothing_later():
  second = 10**9
  states = np.array([[7, 50, 90], [7, 99, 50], [7, 40, 97]], np.int64) * second
  stored = file_states.settled(states, looked_at=100 * second)
  assert file_states.differing(stored, states).tolist() == [1]
  # To the clock's resolution that is two seconds.
  stored = file_states.settled(states, looked_at=99 * second - 1)
  assert file_states.differing(stored, states).tolist() == [1, 2]


def test_digests_are_those_of_the_contents(tmp_path):
  contents = [bytes([number]) * (number * 700_000) for number in range(5)]
  files = [tmp_path / str(number) for number in range(5)]
  for file, content in zip(files, contents):
    file.write_bytes(content)
  expected = [hashlib.blake2b(content, digest_size=16).digest() for content in contents]
  assert [bytes(row) for row in file_states.digests(list(map(str, files)))] == expected
  assert file_states.digests([]).shape == (0, 16)


def test_the_digest_of_a_rewritten_file_is_not_remembered(tmp_path):
  file = tmp_path / "a"
  file.write_bytes(b"a")
  before = file_states.digest(str(file))
  file.write_bytes(b"bb")
  assert file_states.digest(str(file)) != before


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError):
    file_states.digests([str(tmp_path / "a")])
