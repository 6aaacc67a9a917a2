"""What arms earn beside what they spend: tokens and steps in the environment, at one budget.

A search has an anytime curve: what it had earned by any spending, so that it can be cut where
another arm ends. An arm that tries a task again can be cut between its trials. An arm of one trial
has one point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from qvlib.agents.arms import MAIN
from qvlib.agents.asked import models_asked
from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path
from qvlib.pipeline.comparison import Outcome
from qvlib.pipeline.params import EPISODES
from qvlib.report.formats import difference, interval, number
from qvlib.report.numbers import by_task
from qvlib.report.numbers.against import difference as paired
from qvlib.report.numbers.episodes import load_episodes
from qvlib.report.numbers.gains import arm_rows
from qvlib.runs.stage import stage_path

NONE = "Not part of this run: set `baselines`, as `params/baselines.yml` does."
COSTS = {"tokens": 2, "steps": 0}
"""What is spent -> its place in a rise of ``core.mcts.Rise``."""
WORDS = {"tokens": "tokens read and written", "steps": "steps in the environment"}
POINTS = 60
"""Budgets at which a curve is drawn, at most."""
KEYS, CURVES = ["arm", "seed", "task"], ["rises", "trials"]
NOTHING = 1e-6  # sums of floats being what they are


@dataclass(frozen=True)
class Study:
    """What the arms earned and spent.

    episodes: of ``numbers.by_task``, with ``steps``, ``tokens`` read and written, what Q reads at
    most among them, and the curves: ``rises`` of searches, ``trials`` of arms that try again, None
    of others. chosen: arm -> its settings, in words.
    """

    episodes: pd.DataFrame
    chosen: Mapping[str, str]

    def of(self, arm: str) -> pd.DataFrame:
        """The episodes of an arm."""
        return self.episodes[self.episodes["arm"] == arm]

    @property
    def arms(self) -> list[str]:
        """The arms, in their order."""
        return [*self.episodes["arm"].unique()]


def load(outcome: Outcome) -> Study:
    """The episodes of the arms that were played with their chosen settings.

    Raises:
        QvlibError: a search was played before its curve of reward by tokens was kept.
    """
    tables, reads = [], {}
    for arm, one in outcome.chosen.items():
        found = load_episodes(one.params, f"{EPISODES}{arm}", *CURVES)
        if any(len(rise) < 3 for rises in found.get("rises", ()) for rise in rises):
            folder = display_path(stage_path(one.params.each_seed()[0], f"{EPISODES}{arm}"))
            raise QvlibError(
                f"{arm} was played before its curve of reward by tokens was kept; delete the "
                f"folder {folder} and those of its other chains, and run the notebook again"
            )
        tables.append(found)
        reads[arm] = models_asked(one.params.q_model.estimator, one.params.arm(arm))
    return study(pd.concat(tables), reads, {a: one.label for a, one in outcome.chosen.items()})


def says(outcome: Outcome) -> dict[str, str]:
    """Arm -> what is executed, in half a sentence."""
    return {name: one.params.arm(name).says for name, one in outcome.chosen.items()}


def study(played: pd.DataFrame, reads: Mapping[str, int], chosen: Mapping[str, str]) -> Study:
    """The study of episodes; played: one row an episode with ``rises``; reads: ``models_asked``.

    What those read at most is added to the tokens.
    """
    episodes = by_task(played)
    episodes["own_tokens"] = episodes["tokens"] + episodes["prompt_tokens"]
    times = episodes["arm"].map(lambda arm: 1 + reads.get(arm, 0))
    episodes = episodes.merge(played.reindex(columns=[*KEYS, *CURVES]), how="left", on=KEYS)
    for name in CURVES:
        episodes[name] = [
            None
            if isinstance(told, float) or told is None
            else [(s, r, t * by) for s, r, t in told]
            for told, by in zip(episodes[name], times, strict=True)
        ]
    episodes["tokens"] = episodes["own_tokens"] * times
    return Study(episodes.rename(columns={"env_steps": "steps"}), chosen)


def has(part: pd.DataFrame, name: str) -> bool:
    """Whether an arm's episodes have curves of this name: ``rises`` or ``trials``."""
    return all(told is not None for told in part[name])


def stopped(part: pd.DataFrame, cost: str, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """(rewards, spent) of searches, [n] each, where none may spend more than ``limit``.

    A search that has earned 1 spends no more.
    """
    place, rewards, spent = COSTS[cost], [], []
    for rises, whole in zip(part["rises"], part[cost], strict=True):
        within = [rise for rise in rises if rise[place] <= limit]
        rewards.append(within[-1][1] if within else 0.0)
        ended = bool(within) and within[-1][1] >= 1
        spent.append(within[-1][place] if ended else min(limit, whole))
    return np.array(rewards), np.array(spent, float)


def after(part: pd.DataFrame, cost: str, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """(rewards, spent) of an arm that tries so often, [n] each; no more after a reward of 1."""
    lasts = []
    for told in part["trials"]:
        solved = next((i for i, trial in enumerate(told) if trial[1] >= 1), len(told) - 1)
        lasts.append(told[min(trials - 1, solved)])
    rewards, spent = ([last[place] for last in lasts] for place in (1, COSTS[cost]))
    return np.array(rewards), np.array(spent, float)


def cut(part: pd.DataFrame, cost: str, budget: float) -> np.ndarray | None:
    """Rewards of an arm that spends ``budget`` a task on average, [n]; None where it cannot.

    Searches all stop at the same spending; others try as often as the budget allows. An arm of one
    trial is as it is if it spends no more than that, and else cannot.
    """
    budget += NOTHING
    if has(part, "trials"):
        told = [after(part, cost, k + 1) for k in range(max(map(len, part["trials"])))]
        return next((r for r, spent in reversed(told) if spent.mean() <= budget), None)
    if not has(part, "rises"):
        return part["reward"].to_numpy() if part[cost].mean() <= budget else None
    low, high = 0.0, float(part[cost].max())
    if stopped(part, cost, high)[1].mean() <= budget:
        return stopped(part, cost, high)[0]
    for _ in range(40):
        middle = (low + high) / 2
        if stopped(part, cost, middle)[1].mean() <= budget:
            low = middle
        else:
            high = middle
    return stopped(part, cost, low)[0]


def curve(part: pd.DataFrame, cost: str) -> pd.DataFrame:
    """``reward`` and ``spent`` a task, means, as an arm may spend more; of one trial its point."""
    if has(part, "trials"):
        told = [after(part, cost, k + 1) for k in range(max(map(len, part["trials"])))]
    elif has(part, "rises"):
        most = float(part[cost].max())
        limits = np.geomspace(max(1.0, most / 300), max(1.0, most), POINTS)
        told = [stopped(part, cost, limit) for limit in limits]
    else:
        told = [(part["reward"].to_numpy(), part[cost].to_numpy())]
    means = [[each.mean() for each in pair] for pair in told]
    return pd.DataFrame(means, columns=["reward", "spent"])


def reckoned(found: Study, resamples: int) -> pd.DataFrame:
    """One row an arm: what it earned and spent, and Q of five minus it, paired, with bounds.

    ``minus`` as it was played, ``minus_tokens`` and ``minus_steps`` where it spends as much as Q of
    five does on average, nan where it cannot; ``reward_tokens`` and ``reward_steps`` likewise.
    """
    rows, budgets = [], {cost: found.of(MAIN)[cost].mean() for cost in COSTS}
    own = found.episodes.rename(columns={"steps": "env_steps"})
    for row in arm_rows(own, resamples).to_dict("records"):
        part = found.of(row["arm"])
        told = {name: row[name] for name in ("arm", "reward", "reward_low", "reward_high")}
        told |= {
            "chosen": found.chosen.get(row["arm"], ""),
            "curve": has(part, "trials") or has(part, "rises"),
        }
        told |= {name: part[name].mean() for name in ("tokens", "own_tokens", "steps")}
        told |= _bounds("minus", _minus(found, part, part["reward"].to_numpy(), resamples))
        for cost, budget in budgets.items():
            rewards = cut(part, cost, budget)
            if rewards is not None:
                told[f"reward_{cost}"] = rewards.mean()
                told |= _bounds(f"minus_{cost}", _minus(found, part, rewards, resamples))
        rows.append(told)
    columns = [f"{name}_{cost}" for cost in COSTS for name in ("reward", "minus")]
    ends = [f"minus_{cost}_{end}" for cost in COSTS for end in ("low", "high")]
    table = pd.DataFrame(rows)
    return table.reindex(columns=[*table.columns.union([*columns, *ends], sort=False)])


def _minus(
    found: Study, part: pd.DataFrame, rewards: np.ndarray, resamples: int
) -> Mapping[str, Any]:
    arm = str(part["arm"].iloc[0])
    if arm == MAIN:
        return {}
    other = part.assign(reward=rewards, success=(rewards >= 1).astype(float))
    both = pd.concat([found.of(MAIN), other]).rename(columns={"steps": "env_steps"})
    return paired(both, MAIN, arm, resamples)


def _bounds(name: str, told: Mapping[str, Any]) -> dict[str, float]:
    if not told:
        return {}
    return {name: told["mean"], f"{name}_low": told["ci95"][0], f"{name}_high": told["ci95"][1]}


def display(table: pd.DataFrame) -> pd.DataFrame:
    """``reckoned`` for reading."""
    rows = []
    for row in table.to_dict("records"):
        bounds = interval(row["reward_low"], row["reward_high"])
        shown = {
            "arm": row["arm"],
            "settings, chosen on dev": row["chosen"],
            "reward": f"{row['reward']:.3f} {bounds}",
            "tokens a task": number(round(row["tokens"])),
            "of these the agent's": number(round(row["own_tokens"])),
            "steps a task": f"{row['steps']:.1f}",
        }
        for name, words in {
            "minus": "Q of 5 minus it",
            "minus_tokens": "with as many tokens as Q of 5",
            "minus_steps": "with as many steps",
        }.items():
            known = not pd.isna(row[name])
            shown[words] = (
                difference(*(row[f"{name}{end}"] for end in ("", "_low", "_high"))) if known else ""
            )
        rows.append(shown)
    return pd.DataFrame(rows)
