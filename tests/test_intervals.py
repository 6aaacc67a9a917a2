"""What intervals cover, and what sentences say of adverse numbers."""

from __future__ import annotations

import numpy as np
import pytest

from qvlib.core.statistics import bootstrap_mean, mean_interval
from qvlib.report.intervals import ratio_interval, share_interval, wilson
from qvlib.report.sentences import few_groups


def crossed(rng, chains, groups, *, training, task, rest):
    """Values of chains x groups with the three spreads, their groups and chains; the truth is 0."""
    values = training * rng.normal(size=(chains, 1)) + task * rng.normal(size=(1, groups))
    values = values + rest * rng.normal(size=(chains, groups))
    chain, group = np.indices((chains, groups))
    return values.ravel(), group.ravel(), chain.ravel()


SPREADS = [
    {"training": 0.05, "task": 0.1, "rest": 0.3},  # of all, as met
    {"training": 0.3, "task": 0.1, "rest": 0.3},  # the luck of training
    {"training": 0.0, "task": 0.3, "rest": 0.1},  # the tasks
]


@pytest.mark.parametrize("spread", SPREADS, ids=["as met", "training", "tasks"])
def test_three_chains_cover_what_they_should(spread):
    """The mean over trainings and tasks, in 95 % of the cases and not in nearly all."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(600):
        values, groups, chains = crossed(rng, 3, 60, **spread)
        _, low, high = mean_interval(values, groups, 200, chains)
        hits += low <= 0 <= high
    assert 0.935 * 600 <= hits <= 0.99 * 600


def test_percentiles_of_few_groups_cover_less_which_is_told():
    """Hence the warning: of 8 groups nine in ten, of 40 as many as they should."""
    rng, covered = np.random.default_rng(6), {}
    for groups in (8, 40):
        hits = 0
        for _ in range(500):
            _, low, high = bootstrap_mean(rng.normal(size=groups), range(groups), 300)
            hits += low <= 0 <= high
        covered[groups] = hits / 500
    assert covered[8] < 0.92 < covered[40]
    assert few_groups(8, "products") and not few_groups(40, "products")


def _chains(chains, groups):
    return np.repeat(np.arange(chains), groups)


def test_one_chain_has_the_bootstrap_of_its_groups():
    rng = np.random.default_rng(1)
    values, groups, chains = crossed(rng, 1, 40, training=0, task=1, rest=0)
    assert mean_interval(values, groups, 500, chains) == bootstrap_mean(values, groups, 500)


def test_more_chains_that_agree_are_no_narrower_than_the_tasks():
    values, groups, _ = crossed(np.random.default_rng(2), 1, 50, training=0, task=1, rest=0)
    tripled = np.tile(values, 3), np.tile(groups, 3), 500, _chains(3, 50)
    _, low, high = mean_interval(*tripled)
    _, lowest, highest = bootstrap_mean(values, groups, 5000)
    assert (low, high) == pytest.approx((lowest, highest), abs=0.05)


def test_two_chains_far_apart_tell_next_to_nothing():
    values = [0.1] * 30 + [0.3] * 30
    _, low, high = mean_interval(values, [*range(30)] * 2, 200, _chains(2, 30))
    assert low < -1 and high > 1.4


@pytest.mark.parametrize("tasks", [8, 20, 60])
def test_a_coin_is_not_told_apart(tasks):
    """Pairs of one task stand or fall together: counted one by one, a coin looks skilled."""
    rng, apart, naive = np.random.default_rng(3), 0, 0
    groups = np.repeat(np.arange(tasks), 12)
    for _ in range(500):
        lean = rng.beta(1, 1, size=tasks)[groups]
        right = (rng.random(len(groups)) < lean).astype(float)
        _, low, high = share_interval(right, groups)
        apart += not low <= 0.5 <= high
        low, high = wilson(right.mean(), len(right))
        naive += not low <= 0.5 <= high
    assert apart <= 0.07 * 500 and naive > 0.2 * 500


def test_skill_is_told_apart():
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(40), 10)
    right = (rng.random(400) < 0.7).astype(float)
    share, low, high = share_interval(right, groups)
    assert 0.5 < low < share < high < 0.8


def test_nothing_of_300_is_not_nothing():
    """Wilson by hand: z² / (n + z²) = 3.8415 / 303.8415."""
    share, low, high = share_interval([0.0] * 300, range(300))
    assert (share, low) == (0, 0) and high == pytest.approx(0.01264, abs=1e-5)
    three = share_interval([0.0] * 900, [*range(300)] * 3, _chains(3, 300))
    assert three == (0, 0, high)  # three trainings on the same tasks are no further tasks
    _, low, high = share_interval([1.0] * 300, [i // 10 for i in range(300)])
    assert low == pytest.approx(1 - 3.8415 / 33.8415, abs=1e-4) and high == 1
    assert share_interval([0.0], ["one"])[2] == pytest.approx(3.8415 / 4.8415, abs=1e-4)


def test_a_few_successes_have_wilsons_interval():
    _, low, high = share_interval([1.0] + [0.0] * 299, range(300))
    assert (low, high) == pytest.approx(wilson(1 / 300, 300), abs=5e-4) and low > 0


def test_the_ratio_of_two_means():
    rng = np.random.default_rng(5)
    groups, chains, hits = np.arange(100), np.zeros(100, int), 0
    for _ in range(300):
        base = rng.normal(0.35, 0.2, size=100)
        change = 0.25 * base + rng.normal(0.0, 0.15, size=100)
        share, low, high = ratio_interval(change, base, groups, 300, chains)
        assert low < share < high
        hits += low <= 0.25 <= high
    assert 0.91 * 300 <= hits <= 0.99 * 300


def test_a_baseline_near_nothing_has_no_relative_interval():
    change, base = np.array([0.2, 0.0, 0.1, 0.0]), np.array([0.1, 0.0, 0.0, 0.0])
    share, low, high = ratio_interval(change, base, range(4), 200, [0] * 4)
    assert share == pytest.approx(3) and np.isnan([low, high]).all()
    assert ratio_interval(change, 0 * base, range(4), 200, [0] * 4) is None
