"""The null of a gain: what Q models earn that were trained on the same pairs without the labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from qvlib.agents.arms import BASE
from qvlib.base.seeding import generator
from qvlib.core.statistics import clustered, mean_interval

FEWEST = 5  # shuffles of a chain that tell what their mean is worth; two may agree by accident
MOST = 200_000  # choices of a model from every chain that are gone through one by one


def null(rows: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """That of ``q_n5``, and under ``n10`` that of ``q_n10``; empty where no control was played.

    ``shuffles``: gain over one sample of each, chain by chain; ``found``: that of Q in each chain.
    ``rank_p``: see there. ``mean``: ``mean`` and ``ci95`` of the method minus its control, paired
    by task; of one chain it takes ``FEWEST`` shuffles to be known.
    rows: of ``by_task``.
    """
    told = {n: _of(rows, f"q_n{n}", f"control_q_n{n}", resamples) for n in (5, 10)}
    return {**told[5], **({"n10": told[10]} if told[10] else {})} if told[5] else {}


def _of(rows: pd.DataFrame, arm: str, control: str, resamples: int) -> dict[str, Any]:
    if not {arm, control, BASE} <= set(rows["arm"]):
        return {}
    means = rows.groupby(["arm", "seed", "shuffle"])["reward"].mean()
    base = means[BASE].droplevel("shuffle")
    gains = {name: means[name].sub(base, level="seed") for name in (arm, control)}
    shuffles = [list(part) for _, part in gains[control].groupby(level="seed")]
    told = {
        "shuffles": [gain for chain in shuffles for gain in chain],
        "found": list(gains[arm]),
        "rank_p": rank_p(list(gains[arm]), shuffles),
    }
    if len(shuffles) > 1 or len(told["shuffles"]) >= FEWEST:
        mean, low, high = _difference(rows, arm, control, resamples)
        told["mean"] = {"mean": mean, "ci95": [low, high]}
    return told


def rank_p(found: Sequence[float], shuffles: Sequence[Sequence[float]]) -> float:
    """How often a model of each chain, drawn from Q's and its shuffles', does as well as Q's.

    A permutation test, its statistic the mean over chains: without labels that count, Q's model
    has any rank among those of its chain. Exact up to ``MOST`` choices, else of so many drawn ones.
    With S shuffles a chain and C chains it is at least (S + 1)^-C.

    Args:
        found: the gain of Q in each chain.
        shuffles: those of the chain's controls.
    """
    every = [np.array([own, *others]) for own, others in zip(found, shuffles, strict=True)]
    least = float(np.sum(found)) - 1e-12
    count = prod(len(chain) for chain in every)
    if count <= MOST:
        return sum(sum(choice) >= least for choice in product(*every)) / count
    rng = generator(0, "rank")
    drawn = np.sum([chain[rng.integers(len(chain), size=MOST)] for chain in every], axis=0)
    return float((1 + np.sum(drawn >= least)) / (1 + MOST))


def _difference(
    rows: pd.DataFrame, arm: str, control: str, resamples: int
) -> tuple[float, float, float]:
    """The method minus its control, with the interval over groups and chains, or shuffles of one.

    Of a single chain Q's model is one more draw: its training has the luck that the shuffles differ
    by, as the mean of theirs has.
    """
    own = rows[rows["arm"] == arm].set_index(["seed", "task"])["reward"]
    part = rows[rows["arm"] == control]
    above = own.loc[pd.MultiIndex.from_frame(part[["seed", "task"]])].to_numpy()
    less = above - part["reward"]
    if part["seed"].nunique() > 1:
        return mean_interval(less, part["group"], resamples, part["chain"])
    mean, half = clustered(less, part["group"], part["chain"], another=True)
    return mean, mean - half, mean + half
