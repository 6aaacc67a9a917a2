"""Rewards and paired gains of the arms, with their intervals, and where episodes fail."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from qvlib.agents.arms import BASE, GREEDY, MAIN, SEARCH
from qvlib.core.statistics import bootstrap_mean, compare, mean_interval
from qvlib.pipeline.context import Context
from qvlib.pipeline.params import Params
from qvlib.report.intervals import ratio_interval, share_interval
from qvlib.report.numbers.episodes import (
    in_order,
    load_by_task,
    refused_share,
    test_episodes,
    unparsable_share,
)
from qvlib.report.numbers.origins import played_tasks


def arm_table(params: Params) -> pd.DataFrame:
    """Reward, success, cost of each arm, with the hash of the test tasks."""
    return _stamped(params, arm_rows(load_by_task(params), params.run.bootstrap))


def gain_table(params: Params, against: str = BASE) -> pd.DataFrame:
    """Paired gain of each arm over ``against``, with the hash of the test tasks.

    The second agent's gain is over its own sample, which says what the Q model adds to it.
    """
    rows = load_by_task(params)
    apart = others(params)
    gains = [gain_rows(rows[~rows["arm"].isin(apart)], params.run.bootstrap, against)]
    for base in dict.fromkeys(apart.values()) if against == BASE else ():
        family = [base, *(arm for arm, own in apart.items() if own == base)]
        gains.append(gain_rows(rows[rows["arm"].isin(family)], params.run.bootstrap, base))
    return _stamped(params, in_order(pd.concat(gains, ignore_index=True), params.arms()))


def others(params: Params) -> dict[str, str]:
    """Arms of other agents than the run's own -> the arm that their gain is over."""
    apart = {arm.name: arm.against for arm in params.arms() if arm.against != BASE}
    return apart | {base: base for base in apart.values()}


def seed_table(params: Params) -> pd.DataFrame:
    """One row a chain: mean reward of the main arms, its controls and search.

    And the gains relative to the chain's own sample.
    """
    rows = load_by_task(params)
    arms = [
        arm
        for arm in (BASE, GREEDY, MAIN, "q_n10", "control_q_n5", "control_q_n10", SEARCH)
        if arm in set(rows["arm"])
    ]
    table = rows.pivot_table(index="seed", columns="arm", values="reward")[arms]
    for arm in (MAIN, "q_n10"):
        table[f"{arm} relative"] = table[arm] / table[BASE].where(table[BASE] > 0) - 1
    return table.reset_index().rename_axis(columns=None)


def failures(context: Context, params: Params | None = None) -> tuple[pd.DataFrame, str] | None:
    """Where the test episodes of all chains fail, by arm, and what the columns mean.

    None where the environment does not tell. params: the run's, where the context is of one chain.
    """
    params = params or context.params
    if context.world.failures is None:
        return None
    tell, explained = context.world.failures
    played = test_episodes(params, "actions")[["arm", "task", "actions"]]
    told = tell(context.environment, played.to_dict("records"))
    return in_order(told, params.arms()), explained


def arm_rows(rows: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """One row an arm: reward and success with intervals, means a task of the costs.

    ``unparsable_share`` where it is ever above 0. rows: of ``by_task``.
    """
    arms = []
    for arm, part in rows.groupby("arm", sort=False):
        reward = mean_interval(part["reward"], part["group"], resamples, part["chain"])
        success = share_interval(part["success"], part["group"], part["chain"])
        arms.append(
            {
                "arm": arm,
                **_interval("reward", *np.clip(reward, 0, 1)),
                **_interval("success", *success),
                "tasks": part["task"].nunique(),
                "seeds": part["seed"].nunique(),
                "shuffles": part["shuffle"].nunique(),
                "env_steps": part["env_steps"].mean(),
                "tokens": part["tokens"].mean(),
                "prompt_tokens": part["prompt_tokens"].mean(),
                "refused_share": refused_share(part),
                "unparsable_share": unparsable_share(part),
            }
        )
    table = pd.DataFrame(arms)
    return table if table["unparsable_share"].any() else table.drop(columns="unparsable_share")


def gain_rows(rows: pd.DataFrame, resamples: int, against: str = BASE) -> pd.DataFrame:
    """One row an arm: its mean gain over ``against``, paired by task.

    ``relative`` to the mean of ``against``, with bounds where that is clearly above 0. Of several
    chains also ``tasks_low`` and ``tasks_high``, the bootstrap over groups of tasks alone: what the
    interval would be if other chains were as these. rows: of ``by_task``.
    """
    records = {arm: part.to_dict("records") for arm, part in rows.groupby("arm", sort=False)}
    gains = compare(records, against, resamples)
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "against": against,
                "gain": gain["mean"],
                "low": gain["ci95"][0],
                "high": gain["ci95"][1],
                "relative": gain["relative"],
                **_other_bounds(rows, arm, against, resamples),
                "tasks": rows.loc[rows["arm"] == arm, "task"].nunique(),
            }
            for arm, gain in gains.items()
        ]
    )


def gap_closed(means: Mapping[str, float], arm: str = MAIN) -> float | None:
    """(Q-reranked - sample) / (search - sample).

    The share of the way to searching with the environment; None where there is no way.
    """
    gap = means[SEARCH] - means[BASE]
    return float((means[arm] - means[BASE]) / gap) if gap > 0 else None


def _other_bounds(rows: pd.DataFrame, arm: str, against: str, resamples: int) -> dict[str, float]:
    """Bounds of a gain over tasks alone, and of one relative to the mean of the other arm.

    The latter are nan where they are not known.
    """
    base = rows[rows["arm"] == against].set_index(["seed", "task"])["reward"]
    part = rows[rows["arm"] == arm]
    below = base.loc[pd.MultiIndex.from_frame(part[["seed", "task"]])].to_numpy()
    above = part["reward"].to_numpy() - below
    found = ratio_interval(above, below, part["group"], resamples, part["chain"])
    bounds = dict(zip(("relative_low", "relative_high"), (found or (np.nan,) * 3)[1:], strict=True))
    if part["seed"].nunique() > 1:
        _, low, high = bootstrap_mean(above, part["group"], resamples)
        bounds |= {"tasks_low": low, "tasks_high": high}
    return bounds


def _interval(name: str, mean: float, low: float, high: float) -> dict[str, float]:
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _stamped(params: Params, table: pd.DataFrame) -> pd.DataFrame:
    """With what each arm is, for pictures, and the hash of the test tasks."""
    kinds = {arm.name: arm.kind for arm in params.arms()}
    known = {"kind": table["arm"].map(kinds), "test_tasks_hash": played_tasks(params)["ids"]}
    return table.assign(**known)
