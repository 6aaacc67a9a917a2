"""The same parameters give the same tables and weights, whatever the folder, batches, processes.

In float64. In float32 the same run twice is equal too, but in other batches matrix products sum in
other orders: the log-probabilities differ in the seventh digit, and a draw or a choice that falls
between two such values takes another action, seldom, but in a large table some do. After an
interruption: ``test_kill.py``.
"""

import json
import os
import subprocess
import sys

import pandas as pd
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


def test_another_instruction_set_changes_no_table(undisturbed, tmp_path):
    """As on another processor: PyTorch without the vector instructions that it uses here.

    The last bits of weights differ, no action and no reward does. Curves of training are left out:
    at their first step every Q is 0 but for rounding, and the accuracy that of coins.
    """
    params = tiny(tmp_path)
    env = os.environ | {
        "ATEN_CPU_CAPABILITY": "default",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    code = (
        "import sys; from torch.backends.cpu import get_cpu_capability as used; "
        "from killing import run; assert used() == 'DEFAULT', used(); run(sys.argv[1])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, json.dumps(dict(params.given))],
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    here, there = (
        {
            name: value
            for name, value in outcome(of).items()
            if isinstance(value, pd.DataFrame) and "curve" not in name
        }
        for of in (undisturbed, params)
    )
    assert {"arms", "gains", "episodes/q_n5/episodes.parquet"} <= here.keys()
    assert differences(here, there, tolerance=1e-6) == {}
