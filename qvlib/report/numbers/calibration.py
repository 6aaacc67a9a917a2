"""Whether scores are what they are meant as: values or probabilities, or orders within a state.

Against two things that the same scores did not choose: what the agent's own episodes earned after
an action, and how a search valued two actions of one state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from qvlib.core.statistics import clustered, mean_interval
from qvlib.estimators import estimator_of
from qvlib.pipeline.followed import STAGE
from qvlib.pipeline.params import Params
from qvlib.report.intervals import Z
from qvlib.runs.stage import read_stage

BINS, PAIR_BINS = 10, 6
FEWEST = 20
"""Actions, or pairs; of fewer nothing is told."""
REWARD, SUCCESS = "reward", "success"
"""What a score is compared with, in words."""
OF_SUCCESS = "probability"
"""Units that begin so are those of a share of successes."""


def calibrated(params: Params, resamples: int) -> dict[str, Any] | None:
    """``calibration`` of an estimator by ``followed``, and under ``outcome`` what its scores mean.

    None of scores that order the actions of one state alone, and where there is none. Of
    ``SUCCESS`` beside it ``success_reward``, from which an episode succeeds.
    """
    of = meant_as(params)
    if of is None:
        return None
    told = calibration(followed(params, of), resamples)
    success = {"success_reward": success_reward(params)} if of == SUCCESS else {}
    return {"outcome": of, **success, **told} if told else None


def meant_as(params: Params) -> str | None:
    """What scores are meant as; None of those that order the actions of one state alone."""
    estimator = estimator_of(params.q_model.estimator)
    if estimator.unit.startswith(OF_SUCCESS):
        return SUCCESS
    return REWARD if estimator.compares_states(params.estimator) else None


def success_reward(params: Params) -> float:
    """The reward from which an episode succeeds, as the estimator takes it; 1 where it has none."""
    return float(getattr(params.estimator, "success_reward", 1.0))


def discount(params: Params) -> float:
    """The discount factor of what scores are meant as: the estimator's own, or the search's."""
    own = params.estimator
    names = ("score_discount", "td_discount", "backup_discount")
    return float(next((getattr(own, n) for n in names if hasattr(own, n)), params.search.discount))


def followed(params: Params, of: str) -> pd.DataFrame:
    """The actions of the agent's own episodes on test tasks, of all chains.

    Columns of ``pipeline.followed``, ``seed``, and ``outcome``, which is the reward, of which
    ``discount`` is left a step further away, or of ``SUCCESS`` 1 of an episode that succeeds and 0
    of another.
    """
    chains = [
        read_stage(chain, STAGE).table("actions").assign(seed=chain.run.seed)
        for chain in params.each_seed()
    ]
    table = pd.concat([chain for chain in chains if len(chain)] or chains, ignore_index=True)
    if not len(table):
        return table
    if of == SUCCESS:
        return table.assign(outcome=(table["reward"] >= success_reward(params)).astype(float))
    return table.assign(outcome=table["reward"] * discount(params) ** table["left"])


def calibration(found: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """How scores stand to the outcomes that followed.

    ``bias``, score minus outcome, and ``slope`` of the outcome along the score, both ``mean`` and
    ``ci95`` over groups (and chains): 0 and 1 where scores are what they are meant as.
    ``correlation`` in [-1, 1], over states as within them. ``error``, the expected calibration
    error: mean absolute difference of mean score and mean outcome in ``BINS`` bins of equal counts;
    ``error_by_chance``: about what a score without any would have, since the outcomes of a bin are
    few. ``bins``: as ``binned``. Empty of fewer than ``FEWEST`` actions, and of equal scores.

    found: of ``followed``.
    """
    if len(found) < FEWEST or found["score"].nunique() == 1:
        return {}
    score, outcome = found["score"].to_numpy(float), found["outcome"].to_numpy(float)
    apart = score - score.mean()
    slope = _slope(found, apart, outcome - outcome.mean(), resamples)
    bins = binned(found, "score", "outcome", BINS)
    weights = np.array([row["count"] for row in bins]) / len(found)
    gaps = [abs(row["score"] - row["outcome"]) for row in bins]
    together = np.corrcoef(score, outcome)[0, 1] if outcome.std() else float("nan")
    return {
        "actions": len(found),
        "tasks": int(found["task"].nunique()),
        "bias": _told(mean_interval(score - outcome, found["group"], resamples, found["seed"])),
        "slope": slope,
        "correlation": None if np.isnan(together) else float(together),
        "error": float(weights @ gaps),
        "error_by_chance": _by_chance(bins, weights),
        "bins": [_cut(row) for row in bins],
    }


def within_states(pairs: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """How differences of scores stand to those of the values that a search found, within a state.

    Of the pairs whose values a search told apart, each turned so that the score prefers its first
    action. ``rank``: Kendall's correlation, the share that is ordered rightly less the share that
    is not; ``slope``: of the difference of values along that of scores, a line through 0, in reward
    a unit of the score; both ``mean`` and ``ci95`` over groups (and chains). ``bins``: as
    ``binned``, of ``PAIR_BINS``. Empty of fewer than ``FEWEST`` pairs, and of equal scores.

    pairs: of ``numbers.kinds.scored_pairs``.
    """
    if len(pairs) < FEWEST or pairs["own"].isna().any() or not pairs["own"].any():
        return {}
    own, margin = pairs["own"].to_numpy(float), pairs["margin"].to_numpy(float)
    turned = pairs.assign(score=np.abs(own), outcome=np.sign(own) * margin)
    rank = mean_interval(np.sign(own), pairs["group"], resamples, pairs["seed"])
    return {
        "pairs": len(pairs),
        "tasks": int(pairs["task"].nunique()),
        "rank": _told(rank),
        "slope": _slope(pairs, own, margin, resamples),
        "bins": binned(turned, "score", "outcome", PAIR_BINS),
    }


def binned(table: pd.DataFrame, by: str, of: str, count: int) -> list[dict[str, Any]]:
    """Means of both columns in at most ``count`` bins of about equal counts along ``by``.

    ``ci95`` is that of the mean of ``of``: t, over groups (and chains), since one episode gives
    several rows; None in a bin of one group, or where nothing differs. ``count`` are its rows.
    """
    cut = pd.qcut(table[by], count, labels=False, duplicates="drop")
    rows = []
    for _, part in table.groupby(cut):
        mean, half = clustered(part[of], part["group"], part["seed"])
        bounds = [mean - half, mean + half] if half else None
        row = {"score": float(part[by].mean()), "outcome": mean}
        rows.append(row | {"ci95": bounds, "count": len(part)})
    return rows


def _cut(row: Mapping[str, Any]) -> dict[str, Any]:
    """A bin with its interval cut to [0, 1], where outcomes are."""
    bounds = row["ci95"] and [max(0.0, row["ci95"][0]), min(1.0, row["ci95"][1])]
    return {**row, "ci95": bounds}


def _slope(table: pd.DataFrame, x: np.ndarray, y: np.ndarray, resamples: int) -> dict[str, Any]:
    """Of the line through 0, with an interval from what each row adds to its linear form."""
    spread = float(np.mean(x * x))
    slope = float(np.mean(x * y)) / spread
    adds = x * (y - slope * x) / spread
    _, low, high = mean_interval(adds, table["group"], resamples, table["seed"])
    return _told((slope, slope + low, slope + high))


def _by_chance(bins: list[dict[str, Any]], weights: np.ndarray) -> float | None:
    """The mean absolute deviation of bins' means, taken as normal; None where one is unknown."""
    if any(row["ci95"] is None for row in bins):
        return None
    deviations = np.array([(row["ci95"][1] - row["ci95"][0]) / (2 * Z) for row in bins])
    return float(weights @ deviations * np.sqrt(2 / np.pi))


def _told(interval: tuple[float, float, float]) -> Mapping[str, Any]:
    mean, low, high = interval
    return {"mean": float(mean), "ci95": [float(low), float(high)]}
