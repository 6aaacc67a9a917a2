"""The same parameters give the same tables and weights, in another folder, in other batches, in more processes.

In float64. In float32 the same run twice is equal too, but other batches are other shapes to the matrix product, and
log-probabilities differ in their seventh digit: a draw between two such values then takes another action, seldom, but
often enough that two large tables differ. After an interruption: ``test_kill.py``.
"""

import pytest

from killing import differences, outcome, run, tiny

pytestmark = pytest.mark.slow


def again(folder, **changes):
    params = tiny(folder, **changes)
    run(params)
    return outcome(params)


def test_twice_is_the_same_to_the_last_bit(undisturbed, tmp_path):
    assert differences(outcome(undisturbed), again(tmp_path), tolerance=0) == {}


def test_other_batches_in_two_processes_change_nothing(undisturbed, tmp_path):
    assert differences(outcome(undisturbed), again(tmp_path, batch_size=64, processes=2)) == {}
