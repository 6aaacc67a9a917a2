"""Intervals and paired comparisons: what a difference between two arms is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from qvlib.base.seeding import generator

BLOCK = 1000  # resamples that are drawn at once, which bounds the memory


def bootstrap_mean(
    values: Sequence[float],
    groups: Sequence[str],
    resamples: int,
    seed: int = 0,
    chains: Sequence[int] | None = None,
) -> tuple[float, float, float]:
    """(mean, low, high): the mean with a 95 % percentile interval of the clustered bootstrap.

    Tasks of one group (a product, a game) are not independent, so whole groups are drawn with
    replacement and the mean is taken over all their tasks. Pass paired differences for a paired
    interval. ``chains`` is the training seed of each value: seeds are drawn with replacement too,
    so that the interval covers the luck of training as far as a handful of seeds can tell it.
    """
    sums, counts = _by_chain_and_group(values, groups, chains)
    means = np.concatenate(list(_resampled_means(sums, counts, resamples, seed)))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def _by_chain_and_group(
    values: Sequence[float], groups: Sequence[str], chains: Sequence[int] | None
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
    """Means of resamples, in blocks: chains and groups are drawn with replacement."""
    chains, groups = sums.shape
    rng, luck = generator(seed, "bootstrap"), generator(seed, "bootstrap", "chains")
    for start in range(0, resamples, BLOCK):
        size = min(BLOCK, resamples - start)
        drawn = rng.integers(groups, size=(size, groups))
        which = luck.integers(chains, size=(size, chains))
        total, count = (
            x[which].sum(1) if chains > 1 else np.broadcast_to(x, (size, groups))
            for x in (sums, counts)
        )
        summed, counted = (np.take_along_axis(x, drawn, 1).sum(1) for x in (total, count))
        yield summed / counted


def compare(
    arms: Mapping[str, Sequence[Mapping[str, Any]]], against: str, resamples: int
) -> dict[str, dict[str, Any]]:
    """Paired gain of mean reward of each arm over ``against``: mean, ci95, relative to its mean.

    Paired by task, and by the chain's ``seed`` where records have one.
    """
    base = {(r.get("seed", 0), r["task"]): r["reward"] for r in arms[against]}
    gains = {}
    for arm, records in arms.items():
        if arm == against:
            continue
        matched = [base[r.get("seed", 0), r["task"]] for r in records]
        mean, low, high = bootstrap_mean(
            [r["reward"] - m for r, m in zip(records, matched, strict=True)],
            [r["group"] for r in records],
            resamples,
            chains=[r.get("seed", 0) for r in records],
        )
        level = float(np.mean(matched))
        gains[arm] = {
            "mean": mean,
            "ci95": [low, high],
            "relative": mean / level if level else None,
        }
    return gains


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of ``count`` independent trials (Wilson's score interval).

    A tie may count as half a success; where that leaves a half, the interval is that of the whole
    numbers on both sides: wider, never narrower.
    """
    from scipy.stats import binomtest

    halves = round(2 * share * count)
    low, high = (
        binomtest(successes, count).proportion_ci(0.95, method="wilson")
        for successes in (halves // 2, (halves + 1) // 2)
    )
    return float(low.low), float(high.high)
