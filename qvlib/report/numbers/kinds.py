"""What Q orders rightly, by the kind of the two actions, beside what needs no reading."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from qvlib.core.statistics import mean_interval
from qvlib.pipeline.params import Params
from qvlib.pipeline.scored import Judged
from qvlib.report.intervals import share_interval
from qvlib.runs.stage import read_stage

FEWEST = 20
"""Pairs of a kind; rarer ones are told together."""
ALL, OTHER = "all", "other"


def accuracy_by_kind(params: Params) -> dict[str, dict[str, Any]]:
    """``by_kind`` of the scored pairs of test tasks of all chains."""
    pairs = scored_pairs(params)
    return by_kind(pairs, params.run.bootstrap) if len(pairs) else {}


def scored_pairs(params: Params, searched: Params | None = None) -> pd.DataFrame:
    """The scored pairs of test tasks of all chains, with ``seed``; empty where there are none.

    searched: the parameters whose searches found the pairs, where those are others.
    """
    tables = [
        read_stage(Judged(chain, found), "scored").table("pairs").assign(seed=chain.run.seed)
        for chain, found in zip(params.each_seed(), (searched or params).each_seed(), strict=True)
    ]
    known = [table for table in tables if len(table)]
    return pd.concat(known, ignore_index=True) if known else pd.DataFrame()


def pair_kind(chosen: str, rejected: str) -> str:
    """The kind of a pair: that of both actions, or both in alphabetical order."""
    return " against ".join(sorted({chosen, rejected}))


def by_kind(pairs: pd.DataFrame, resamples: int) -> dict[str, dict[str, Any]]:
    """Kind of pair -> how often each way to score orders the two actions as the search did.

    The commonest kind first, those of fewer than ``FEWEST`` pairs as "other", then "all". ``own``,
    ``foreign`` and ``log_pi`` are shares of the pairs (a tie counts one half; None where it is not
    known), ``ci95``, ``foreign_ci95`` and ``log_pi_ci95`` their intervals over groups and chains.
    ``own_minus_foreign`` and ``own_minus_log_pi`` are paired: ``mean`` and ``ci95``.

    pairs: of ``pipeline.score_pairs``, with ``seed``.
    """
    kinds = pd.Series(
        map(pair_kind, pairs["chosen_kind"], pairs["rejected_kind"]), index=pairs.index
    )
    counts = kinds.value_counts()
    kinds = kinds.where(kinds.map(counts) >= FEWEST, OTHER)
    names = sorted(set(kinds), key=lambda kind: (kind == OTHER, -(kinds == kind).sum(), kind))
    parts = {name: pairs[kinds == name] for name in names} | {ALL: pairs}
    return {name: _told(part, resamples) for name, part in parts.items()}


def _told(part: pd.DataFrame, resamples: int) -> dict[str, Any]:
    own, foreign, log_pi = (_right(part[way]) for way in ("own", "foreign", "log_pi"))
    # Tasks of a group are alike; tables of older code tell the task alone.
    groups = part["group" if "group" in part else "task"].to_numpy()
    chains = part["seed"].to_numpy()

    def share(right: np.ndarray | None) -> tuple[float | None, list[float] | None]:
        if right is None:
            return None, None
        value, low, high = share_interval(right, groups, chains)
        return float(value), [float(low), float(high)]

    def minus(right: np.ndarray | None) -> dict[str, Any] | None:
        if own is None or right is None:
            return None
        mean, low, high = mean_interval(own - right, groups, resamples, chains)
        return {"mean": float(mean), "ci95": [float(low), float(high)]}

    told: dict[str, Any] = {}
    for way, right in (("own", own), ("foreign", foreign), ("log_pi", log_pi)):
        told[way], told["ci95" if way == "own" else f"{way}_ci95"] = share(right)
    return told | {
        "pairs": len(part),
        "tasks": int(part["task"].nunique()),
        "own_minus_foreign": minus(foreign),
        "own_minus_log_pi": minus(log_pi),
    }


def _right(difference: pd.Series) -> np.ndarray | None:
    """1 where the chosen action has more, one half of a tie, else 0; None where one is unknown."""
    values = difference.astype(float).to_numpy()
    return None if np.isnan(values).any() else (np.sign(values) + 1) / 2


def kind_table(found: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """``accuracy_by_kind`` as a table, one row a kind of pair."""
    rows = []
    for kind, told in found.items():
        row: dict[str, Any] = {"kind": kind, "pairs": told["pairs"], "tasks": told["tasks"]}
        for way in ("own", "foreign", "log_pi"):
            bounds = told["ci95" if way == "own" else f"{way}_ci95"] or [None, None]
            row |= {way: told[way], f"{way}_low": bounds[0], f"{way}_high": bounds[1]}
        for rival in ("foreign", "log_pi"):
            difference = told[f"own_minus_{rival}"] or {"mean": None, "ci95": [None, None]}
            low, high = difference["ci95"]
            name = f"minus_{rival}"
            row |= {name: difference["mean"], f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)
