"""Intervals and paired comparisons: what a difference between two arms is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qvlib.base.seeding import generator


def bootstrap_mean(
    values: Sequence[float],
    groups: Sequence[str],
    resamples: int,
    seed: int = 0,
    chains: Sequence[int] | None = None,
) -> tuple[float, float, float]:
    """(mean, low, high): the mean with a 95 % percentile interval that resamples whole groups and, where there are several, chains.

    Tasks of one group (a product, a game) are not independent, so groups are drawn with replacement and the
    mean is taken over all their tasks. Pass paired differences for a paired interval. ``chains`` is the
    training seed of each value: they are drawn with replacement too, so that the interval covers the luck
    of training as far as a handful of seeds can tell it.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    seeds, row = np.unique(
        np.zeros(len(index), int) if chains is None else np.asarray(chains), return_inverse=True
    )
    sums, counts = np.zeros((len(seeds), len(names))), np.zeros((len(seeds), len(names)))
    np.add.at(sums, (row, index), np.asarray(values, float))
    np.add.at(counts, (row, index), 1)
    rng, luck = generator(seed, "bootstrap"), generator(seed, "bootstrap", "chains")
    means = np.empty(resamples)
    for start in range(0, resamples, 1000):
        drawn = rng.integers(len(names), size=(min(1000, resamples - start), len(names)))
        which = luck.integers(len(seeds), size=(len(drawn), len(seeds)))
        total, count = (
            x[which].sum(1) if len(seeds) > 1 else np.broadcast_to(x, (len(drawn), len(names)))
            for x in (sums, counts)
        )
        means[start : start + len(drawn)] = np.take_along_axis(total, drawn, 1).sum(
            1
        ) / np.take_along_axis(count, drawn, 1).sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(sums.sum() / counts.sum()), float(low), float(high)


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
