"""Anytime curves of searches, and the steps that another way of choosing saves at equal reward.

A search shows the best reward that it has seen after any number of steps in the environment, so one
search of a task tells what every shorter one would have earned. Nothing is better than a reward of
1: there it counts as ended.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qvlib.core.statistics import Interval, mean_interval

NOTHING = 1e-9  # sums of floats being what they are


@dataclass(frozen=True)
class Anytime:
    """What n searches had found by each budget of steps in the environment, and had spent.

    budgets: [b] 0, 1, ... to where the longest search ended. rewards: [b, n] in [0, 1]. spent:
    [b, n] steps; a search that has ended spends no more. groups, chains: [n], of the tasks.
    whole: the largest budget by which no search had run out of iterations before a reward of 1; a
    search of more iterations may earn more beyond it.
    """

    budgets: np.ndarray
    rewards: np.ndarray
    spent: np.ndarray
    groups: Sequence[Any]
    chains: Sequence[Any]
    whole: int

    def interval(self, values: np.ndarray, resamples: int) -> Interval:
        """The mean of a value a search, [n], with its 95 % interval over chains and groups."""
        return mean_interval(values, self.groups, resamples, self.chains)


def anytime(
    rises: Sequence[Sequence[Sequence[float]]],
    steps: Sequence[int],
    groups: Sequence[Any],
    chains: Sequence[Any],
) -> Anytime:
    """The curves of searches; rises: of each, (steps so far, reward, ...) as ``Tree`` has them.

    steps: what each had taken in the environment when it ended.
    """
    ends, solved = np.array(steps, int), np.zeros(len(steps), bool)
    for i, own in enumerate(rises):
        solved[i] = bool(len(own)) and own[-1][1] >= 1
        ends[i] = own[-1][0] if solved[i] else ends[i]
    budgets = np.arange(ends.max(initial=0) + 1)
    rewards = np.zeros((len(budgets), len(steps)))
    for i, own in enumerate(rises):
        for since, reward, *_ in own:  # ascending, the last one stays
            rewards[int(since) :, i] = reward
    spent = np.minimum(budgets[:, None], ends[None, :])
    whole = int(ends[~solved].min()) if (~solved).any() else int(budgets[-1])
    return Anytime(budgets, rewards, spent, list(groups), list(chains), whole)


@dataclass(frozen=True)
class Saved:
    """What a way of choosing saves against searches, at equal mean reward; steps a task.

    budget, needed: the least budget with which the searches' mean reward is not below, and what
    they spend of it on average; None where the longest do not reach it. steps: what is saved, the
    mean difference; what is saved at least where it is not reached. low, high: its 95 % interval; a
    high of inf is no bound. less: reward minus that of searches that spend as many steps, paired,
    with its interval.
    """

    budget: int | None
    needed: float | None
    steps: float
    low: float
    high: float
    less: Interval


def saved(curves: Anytime, rewards: np.ndarray, steps: np.ndarray, resamples: int) -> Saved:
    """What a way of choosing with these rewards and steps, [n], saves; paired search by search.

    The interval is by inversion. With each budget the difference of rewards has an interval as
    everywhere. Searches need more than a budget with which they are shown to earn less, and no more
    than one with which they are shown to earn no less: so two budgets bound what is needed. The
    ends are the lower bound of what is saved at the first and the upper one at the second, so that
    the luck of the steps counts too. Three chains are too few to be resampled, and a resampled
    curve may not reach the reward at all.
    """

    def ahead(budget: int) -> Interval:
        return curves.interval(rewards - curves.rewards[budget], resamples)

    def spared(budget: int) -> Interval:
        return curves.interval(curves.spent[budget] - steps, resamples)

    def first(bound: int) -> int:
        """The first budget with a bound of ``ahead`` not above zero, by bisection.

        The mean falls as the budget grows. A bound may rise by a little where its interval widens,
        so that the crossing found may be a few steps from another.
        """
        return bisect_left(curves.budgets, True, key=lambda b: ahead(b)[bound] <= NOTHING)

    mean, low, high = first(0), first(1), first(2)
    last = int(curves.budgets[-1])
    alike = int(np.searchsorted(curves.spent.mean(axis=1), steps.mean() - NOTHING))
    return Saved(
        budget=mean if mean <= last else None,
        needed=float(curves.spent[mean].mean()) if mean <= last else None,
        steps=spared(min(mean, last))[0],
        low=spared(min(low, last))[1],
        high=spared(high)[2] if high <= last else math.inf,
        less=ahead(min(alike, last)),
    )
