"""Intervals of shares and of ratios, from the variance between groups of tasks and chains."""

from __future__ import annotations

import math

import numpy as np

from qvlib.core.statistics import Interval, Names, Values, clustered, mean_interval

Z = 1.959963984540054  # of 95 %


def share_interval(values: Values, groups: Names, chains: Names | None = None) -> Interval:
    """A share (values in [0, 1]) with Wilson's 95 % interval over as many trials as it is worth.

    So many independent trials would leave the variance that is found between groups (and chains):
    Korn and Graubard's effective size. Where all values are the same none is found, and a group
    counts as one trial.
    """
    share, half = clustered(values, groups, chains)
    trials = float(len(set(groups)))
    if half > 0 and 0 < share < 1:
        trials = min(share * (1 - share) * (Z / half) ** 2, len(values))
    return share, *wilson(share, trials)


def wilson(share: float, trials: float) -> tuple[float, float]:
    """95 % interval of a share of ``trials`` independent trials (Wilson's score interval)."""
    middle, weight = share + Z**2 / (2 * trials), 1 + Z**2 / trials
    half = Z * math.sqrt(share * (1 - share) / trials + (Z / (2 * trials)) ** 2)
    low, high = (middle - half) / weight, (middle + half) / weight
    return low if share > 0 else 0.0, high if share < 1 else 1.0


def ratio_interval(
    above: np.ndarray, below: np.ndarray, groups: Names, resamples: int, chains: Names
) -> Interval | None:
    """The ratio of two paired means with its 95 % interval, from the ratio's linear form.

    None where the mean below is not positive; bounds of nan where its own interval reaches 0.
    """
    level, lowest, _ = mean_interval(below, groups, resamples, chains)
    if level <= 0:
        return None
    ratio = float(above.mean()) / level
    if lowest <= 0:
        return ratio, math.nan, math.nan
    _, low, high = mean_interval((above - ratio * below) / level, groups, resamples, chains)
    return ratio, ratio + low, ratio + high
