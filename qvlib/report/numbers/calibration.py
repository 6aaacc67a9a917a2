"""Whether a score that is meant as a value is one: against what searches of test tasks found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from qvlib.core.statistics import mean_interval

BINS = 10
FEWEST = 20
"""Actions; of fewer nothing is told."""


def actions(pairs: pd.DataFrame) -> pd.DataFrame:
    """The actions of scored pairs, each once: ``score`` and ``value``, by task, group and seed.

    Empty where the scores are not known, or are those of older code, which kept differences alone.
    pairs: of ``numbers.kinds.scored_pairs``.
    """
    if not {"q", "value"} <= set(pairs) or pairs["q"].isna().any():
        return pd.DataFrame()
    of = pairs[["seed", "task", "group", "depth"]]
    both = [
        of.assign(action=pairs["chosen"], score=pairs["q"], value=pairs["value"]),
        of.assign(
            action=pairs["rejected"],
            score=pairs["q"] - pairs["own"],
            value=pairs["value"] - pairs["margin"],
        ),
    ]
    table = pd.concat(both, ignore_index=True)
    # One action stands in several pairs, in which sums of floats differ in their last digits.
    keys = ["seed", "task", "depth", "action", "rounded"]
    once = table.assign(rounded=table["value"].round(9)).drop_duplicates(keys)
    return once.drop(columns="rounded").reset_index(drop=True)


def calibration(found: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """How scores stand to the values that the searches of the test tasks found.

    ``bias``, score minus value, and ``slope`` of the value along the score, both ``mean`` and
    ``ci95`` over groups (and chains): 0 and 1 where scores are values. ``correlation`` in [-1, 1].
    ``error``: mean absolute difference of mean score and mean value in ``BINS`` bins of equal
    counts, and ``bins`` those means with their counts. Empty of fewer than ``FEWEST`` actions, and
    where all scores are equal.

    found: of ``actions``.
    """
    if len(found) < FEWEST or found["score"].nunique() == 1:
        return {}
    score, value = found["score"].to_numpy(float), found["value"].to_numpy(float)
    apart, spread = score - score.mean(), score.var()
    slope = float(np.mean(apart * (value - value.mean())) / spread)
    # What each action adds to the error of the slope, in its linear form.
    adds = apart * (value - value.mean() - slope * apart) / spread
    _, low, high = mean_interval(adds, found["group"], resamples, found["seed"])
    bias = mean_interval(score - value, found["group"], resamples, found["seed"])
    cut = pd.qcut(found["score"], BINS, labels=False, duplicates="drop")
    bins = found.groupby(cut)[["score", "value"]].mean().assign(count=cut.value_counts())
    gap = (bins["score"] - bins["value"]).abs()
    together = np.corrcoef(score, value)[0, 1] if value.std() else float("nan")
    return {
        "actions": len(found),
        "tasks": int(found["task"].nunique()),
        "bias": {"mean": float(bias[0]), "ci95": [float(bias[1]), float(bias[2])]},
        "slope": {"mean": slope, "ci95": [float(slope + low), float(slope + high)]},
        "correlation": None if np.isnan(together) else float(together),
        "error": float((gap * bins["count"]).sum() / len(found)),
        "bins": bins.to_dict("records"),
    }
