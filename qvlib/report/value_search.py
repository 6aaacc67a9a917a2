"""Searches that go by a value head, beside MCTS: steps in the environment at equal reward.

Beam and best-first search compare states by their values and are told no reward; MCTS is told the
reward of each end that it reaches. Arms of one trial stand beside them: they try nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from qvlib.agents.arms import BASE, MAIN, SEARCH
from qvlib.agents.beam import BEAM
from qvlib.agents.best_first import BEST_FIRST
from qvlib.agents.saycan import SAYCAN_N5
from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path
from qvlib.pipeline.params import EPISODES, Params
from qvlib.report.anytime import Anytime, anytime, saved
from qvlib.report.formats import difference, interval
from qvlib.report.numbers import against
from qvlib.report.numbers.episodes import load_by_task, load_episodes
from qvlib.report.numbers.gains import arm_rows
from qvlib.runs.stage import stage_path

BY_VALUES = (BEAM.name, BEST_FIRST.name)
"""The arms that compare states in the environment."""
ONE_TRIAL = (MAIN, "q_n10")
"""The arms of one trial by the same values; ten candidates are about as many draws as a beam's."""
SHOWN = (SEARCH, *BY_VALUES, *ONE_TRIAL, SAYCAN_N5.name, "likely_n5", BASE)
POINTS = 80
"""Budgets at which the curve is drawn, at most."""
KEYS, TOLD = ["seed", "task"], ["done", "env_steps_saved"]


@dataclass(frozen=True)
class Study:
    """What a run played of the study.

    episodes: of ``numbers.by_task``, of the arms ``SHOWN`` that were played, in this order, with
    ``done`` and ``env_steps_saved`` of those ``BY_VALUES``. curves: of the searches, in the order
    of their episodes.
    """

    episodes: pd.DataFrame
    curves: Anytime

    def of(self, arm: str) -> pd.DataFrame:
        """The episodes of an arm, in the order of the curves."""
        return self.episodes[self.episodes["arm"] == arm]

    @property
    def arms(self) -> list[str]:
        """The arms that were played, in their order."""
        return [*self.episodes["arm"].unique()]


def load(params: Params) -> Study:
    """The episodes of a run as far as they are of this study.

    Raises:
        QvlibError: searches were played before their curves were kept.
    """
    told = [_searches(chain) for chain in params.each_seed()]
    played = load_by_task(params)
    tried = [arm for arm in BY_VALUES if arm in set(played["arm"])]
    told += [load_episodes(params, EPISODES + arm, *TOLD) for arm in tried]
    return study(played, pd.concat(told))


def _searches(chain: Params) -> pd.DataFrame:
    stage = EPISODES + SEARCH
    found = load_episodes(chain, stage, "rises")
    if "rises" not in found or found["rises"].isna().any():
        raise QvlibError(
            "the searches of the test tasks have no curve of reward by steps, since they were "
            f"played before it was kept; delete the folder {display_path(stage_path(chain, stage))}"
            " and run notebooks/05_evaluate.ipynb again with the same parameters, or `qvlib run`"
        )
    return found


def study(played: pd.DataFrame, told: pd.DataFrame) -> Study:
    """The study of episodes, of ``numbers.by_task``.

    told: one row an episode, of searches ``rises``, of the arms ``BY_VALUES`` also ``TOLD``.
    """
    names = [arm for arm in SHOWN if arm in set(played["arm"])]
    more = told[told["arm"].isin(BY_VALUES)].reindex(columns=["arm", *KEYS, *TOLD])
    episodes = pd.concat([played[played["arm"] == arm] for arm in names])
    episodes = episodes.merge(more, how="left", on=["arm", *KEYS])
    searches = told[told["arm"] == SEARCH].set_index(KEYS)["rises"]
    own = episodes[episodes["arm"] == SEARCH]
    rises = searches.loc[pd.MultiIndex.from_frame(own[KEYS])]
    return Study(episodes, anytime([*rises], [*own["env_steps"]], own["group"], own["chain"]))


def curve(found: Study, resamples: int) -> pd.DataFrame:
    """One row a budget of steps: what searches spend of it, their reward with its interval.

    ``whole``: no search has run out of iterations by then.
    """
    curves = found.curves
    longest = int(curves.budgets[-1])
    drawn = np.unique(np.geomspace(1, max(1, longest), POINTS).round().astype(int))
    rows = []
    for budget in drawn[drawn <= longest]:
        reward, low, high = np.clip(curves.interval(curves.rewards[budget], resamples), 0, 1)
        steps, whole = float(curves.spent[budget].mean()), budget <= curves.whole
        told = {"budget": budget, "steps": steps, "reward": reward, "low": low, "high": high}
        rows.append({**told, "whole": bool(whole)})
    return pd.DataFrame(rows)


def reckoned(found: Study, resamples: int) -> pd.DataFrame:
    """One row an arm: its reward and costs, and what it saves of the steps that MCTS needs.

    ``budget``, ``needed``, ``saved`` and ``less`` with bounds are those of ``anytime.Saved``.
    ``ended``: share of episodes that came to an end. ``unstepped``: actions valued, not stepped.
    """
    rows = []
    for row in arm_rows(found.episodes, resamples).to_dict("records"):
        part = found.of(row["arm"])
        row["unstepped"] = part["env_steps_saved"].mean()
        row["ended"] = part["done"].mean()
        if row["arm"] != SEARCH:
            steps, rewards = part["env_steps"].to_numpy(), part["reward"].to_numpy()
            told = saved(found.curves, rewards, steps, resamples)
            row |= {"budget": told.budget, "needed": told.needed, "saved": told.steps}
            row |= {"saved_low": told.low, "saved_high": told.high}
            row |= dict(zip(("less", "less_low", "less_high"), told.less, strict=True))
        rows.append(row)
    longest = float(found.curves.spent[-1].mean())
    return pd.DataFrame(rows).assign(longest=longest, whole=found.curves.whole)


def minus(found: Study, other: str, resamples: int) -> dict[str, dict[str, Any]]:
    """Arm of ``BY_VALUES`` -> ``mean`` and ``ci95`` of its reward minus another arm's, paired."""
    told = {arm: against.difference(found.episodes, arm, other, resamples) for arm in BY_VALUES}
    return {arm: entry for arm, entry in told.items() if entry}


def one_task(found: Study) -> tuple[str, pd.DataFrame]:
    """The task of the search whose best reward rose most often, and what each arm made of it."""
    curves = found.curves
    grown = np.diff(curves.rewards, axis=0) > 0
    i = int(grown.sum(axis=0).argmax())
    rows = [(SEARCH, b, curves.rewards[b, i]) for b in np.flatnonzero(grown[:, i]) + 1]
    own = {arm: found.of(arm).iloc[i] for arm in found.arms}
    rows += [(a, row["env_steps"], row["reward"]) for a, row in own.items() if a != SEARCH]
    shown = pd.DataFrame(rows, columns=["arm", "after steps", "reward"])
    return str(own[SEARCH]["task"]), shown


def steps_saved(steps: float, low: float, high: float, reached: bool = True) -> str:
    """``+18.9 [+12.0, +30.1]``; ``more than +70.2 [+66.0, no bound]``."""
    bounds = f"[{low:+.1f}, no bound]" if math.isinf(high) else interval(low, high, "+.1f")
    return f"{'' if reached else 'more than '}{steps:+.1f} {bounds}"


def display_steps(table: pd.DataFrame) -> pd.DataFrame:
    """``reckoned`` for reading: rewards and steps."""

    def shown(row: Mapping[str, Any]) -> dict[str, Any]:
        bounds = interval(row["reward_low"], row["reward_high"])
        told = {
            "arm": row["arm"],
            "reward": f"{row['reward']:.3f} {bounds}",
            "steps a task": f"{row['env_steps']:.1f}",
        }
        if row["arm"] == SEARCH:
            return told
        reached = not pd.isna(row["needed"])
        return told | {
            "MCTS needs for it": f"{row['needed']:.1f}"
            if reached
            else f"not reached within {row['longest']:.1f}",
            "steps saved": steps_saved(row["saved"], row["saved_low"], row["saved_high"], reached),
            "less MCTS of as many steps": difference(
                row["less"], row["less_low"], row["less_high"]
            ),
        }

    return pd.DataFrame([shown(row) for row in table.to_dict("records")]).fillna("")


def display_costs(table: pd.DataFrame) -> pd.DataFrame:
    """``reckoned`` for reading: what a task costs."""
    return pd.DataFrame(
        {
            "arm": table["arm"],
            "steps": table["env_steps"].map("{:.1f}".format),
            "valued, not stepped": [_known(value, ".1f") for value in table["unstepped"]],
            "episodes that ended": [_known(value, ".1%") for value in table["ended"]],
            "tokens written": table["tokens"].map("{:,.0f}".format),
            "tokens read": table["prompt_tokens"].map("{:,.0f}".format),
        }
    )


def _known(value: float, form: str) -> str:
    return "" if pd.isna(value) else f"{value:{form}}"
