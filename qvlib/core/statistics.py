"""Intervals and paired comparisons: what a difference between two arms is worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from qvlib.base.seeding import generator

BLOCK = 1000  # resamples that are drawn at once, which bounds the memory

Values = Sequence[float] | np.ndarray
Names = Sequence[Any]
Interval = tuple[float, float, float]  # (mean, low, high)


def bootstrap_mean(values: Values, groups: Names, resamples: int, seed: int = 0) -> Interval:
    """The mean with a 95 % percentile interval of the clustered bootstrap.

    Tasks of one group (a product, a game) are not independent, so whole groups are drawn with
    replacement and the mean is taken over all their tasks. Pass paired differences for a paired
    interval. It is too narrow where groups are few, under fifteen or so.
    """
    sums, counts = (x[0] for x in _by_chain_and_group(values, groups, None))
    means = np.concatenate(list(_resampled_means(sums, counts, resamples, seed)))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def mean_interval(values: Values, groups: Names, resamples: int, chains: Names) -> Interval:
    """The mean with its 95 % interval: ``bootstrap_mean`` of one chain, else a t interval.

    chains: the training seed of each value. A handful of seeds is too few for percentiles.
    """
    if len(set(chains)) == 1:
        return bootstrap_mean(values, groups, resamples)
    mean, half = clustered(values, groups, chains)
    return mean, mean - half, mean + half


def clustered(
    values: Values, groups: Names, chains: Names | None = None, another: bool = False
) -> tuple[float, float]:
    """(mean, half of its 95 % t interval): over groups or, of several chains, over chains.

    The means of chains differ by luck, not by the tasks, which they share: the variance that groups
    have in common in all chains is added. Few chains may agree by accident: what the values differ
    by within chains and groups bounds it from below. another: the values are differences from one
    more chain, whose own luck adds to that of the others' mean.
    """
    sums, counts = _by_chain_and_group(values, groups, chains)
    residuals = (sums - counts * sums.sum() / counts.sum()) / counts.sum()
    seeds, names = residuals.shape
    apart = float(np.square(residuals).sum()) if seeds > 1 else 0.0
    shared = (float(np.square(residuals.sum(0)).sum()) - apart) * seeds / max(1, seeds - 1)
    shared = max(0.0, shared)
    over_chains = _t_squared(seeds) * float(np.square(residuals.sum(1)).sum())
    over_chains *= seeds + 1 if another else 1
    apart = _t_squared(names) * max(0.0, apart - shared / seeds)
    square = _t_squared(names) * shared + max(over_chains, apart)
    return float(sums.sum() / counts.sum()), math.sqrt(square)


def _t_squared(count: int) -> float:
    """What a sum of squares of ``count`` deviations is multiplied by; 0 of a single one."""
    from scipy.special import stdtrit  # scipy.stats takes seconds to import

    return float(stdtrit(count - 1, 0.975)) ** 2 * count / (count - 1) if count > 1 else 0.0


def _by_chain_and_group(
    values: Values, groups: Names, chains: Names | None
) -> tuple[np.ndarray, np.ndarray]:
    """(sums, counts) of the values, each [chains, groups]."""
    names, column = np.unique(np.asarray(groups), return_inverse=True)
    known = np.zeros(len(column), int) if chains is None else np.asarray(chains)
    seeds, row = np.unique(known, return_inverse=True)
    sums, counts = np.zeros((len(seeds), len(names))), np.zeros((len(seeds), len(names)))
    np.add.at(sums, (row, column), np.asarray(values, float))
    np.add.at(counts, (row, column), 1)
    return sums, counts


def _resampled_means(
    sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Means of resamples, in blocks: groups are drawn with replacement."""
    rng = generator(seed, "bootstrap")
    for start in range(0, resamples, BLOCK):
        drawn = rng.integers(len(sums), size=(min(BLOCK, resamples - start), len(sums)))
        yield sums[drawn].sum(1) / counts[drawn].sum(1)


def compare(
    arms: Mapping[str, Sequence[Mapping[str, Any]]], against: str, resamples: int
) -> dict[str, dict[str, Any]]:
    """Paired gain of mean reward of each arm over ``against``: mean, ci95, relative to its mean.

    Paired by task, and by the chain's ``seed`` where records have one. Intervals take the records'
    ``chain``, else their seed, as repetitions.
    """
    base = {(r.get("seed", 0), r["task"]): r["reward"] for r in arms[against]}
    gains = {}
    for arm, records in arms.items():
        if arm == against:
            continue
        matched = [base[r.get("seed", 0), r["task"]] for r in records]
        mean, low, high = mean_interval(
            [r["reward"] - m for r, m in zip(records, matched, strict=True)],
            [r["group"] for r in records],
            resamples,
            [r.get("chain", r.get("seed", 0)) for r in records],
        )
        gains[arm] = {
            "mean": mean,
            "ci95": [low, high],
            "relative": mean / float(np.mean(matched)) if any(matched) else None,
        }
    return gains
