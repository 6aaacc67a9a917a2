"""The same parameters give the same tables and weights, whatever the folder, batches, processes.

In float64. In float32 the same run twice is equal too, but in other batches matrix products sum in
other orders: the log-probabilities differ in the seventh digit, and a draw or a choice that falls
between two such values takes another action, seldom, but in a large table some do. After an
interruption: ``test_kill.py``.
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
