"""Choices compared: rules for pairs and counts of candidates from what a run has; scoring rules, each with its control."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from qvlib import pipeline
from qvlib.core.preferences import accuracy, build_pairs
from qvlib.pipeline.params import Params
from qvlib.report import numbers
from qvlib.report.siblings import held_out_trees
from qvlib.runs.stage import read_stage

NO_RULES = "Not part of this run: set `rule_tasks`, as `params/full.yml` does."
NO_GRID = "Not part of this run: set `grid`, as `params/ablations.yml` does."
SHOWN = {"q": "Q", "control": "control", "twin": "no Q"}

MARGINS, VISITS = (0.0, 0.1, 0.3), (1, 2)


def pair_rules(params: Params) -> pd.DataFrame:
    """Pairs by rule and filters, and how the run's Q model orders those of the held-out trees."""
    trees, held = pipeline.load_trees(params), held_out_trees(params)
    choices = list(product(("best_path", "all_nodes"), VISITS, MARGINS))
    seen = [build_pairs(held, rule, margin, visits) for rule, visits, margin in choices]
    q = _score(
        params,
        {(p.task, p.path, a) for pairs in seen for p in pairs for a in (p.chosen, p.rejected)},
    )
    rows = []
    for (rule, visits, margin), held_pairs in zip(choices, seen, strict=True):
        pairs = build_pairs(trees, rule, margin, visits)
        scores = np.array(
            [[q[p.task, p.path, a] for a in (p.chosen, p.rejected)] for p in held_pairs]
        ).reshape(-1, 2)
        rows.append(
            {
                "rule": rule,
                "min visits": visits,
                "min margin": margin,
                "pairs": len(pairs),
                "pairs a tree": len(pairs) / len(trees),
                "mean margin": _mean([p.margin for p in pairs]),
                "mean depth": _mean([p.depth for p in pairs]),
                "held-out pairs": len(held_pairs),
                "ordered rightly": accuracy(scores[:, 0], scores[:, 1]),
            }
        )
    return pd.DataFrame(rows)


def reward_by_n(params: Params) -> pd.DataFrame:
    """Mean reward with its interval for the numbers of candidates that were played; n = 1 is ``sample``."""
    arms = numbers.arm_table(params).set_index("arm")
    played = [(1, "sample"), (5, "q_n5"), (10, "q_n10")]
    return pd.DataFrame(
        [{"n": n, **arms.loc[arm, ["reward", "reward_low", "reward_high"]]} for n, arm in played]
    )


def rule_table(params: Params) -> pd.DataFrame:
    """One row a scoring rule: mean reward with Q, and the paired gains over one sample of Q, of its control and of its twin.

    The control is the same rule with Q models of shuffled winners, its shuffles averaged task by task; the twin
    the same rule without Q. Columns ``<q|control|twin>_gain``, ``_low``, ``_high`` with 95 % intervals over groups
    (and chains), ``relative`` and ``verdict`` (``reading.rule_verdict``). Tasks are dev tasks.
    """
    from qvlib.core.statistics import bootstrap_mean
    from qvlib.report.sentences import rule_verdict

    pipeline.try_rules(params)
    rows = numbers.by_task(numbers.load_episodes(params, "rules"))
    wide = rows.pivot(index=["group", "seed", "task"], columns="arm", values="reward")
    groups, chains = wide.index.get_level_values("group"), wide.index.get_level_values("seed")
    made = []
    for rule in pipeline.RULES:
        row = {
            "rule": rule.name,
            "candidates": params.rule_n,
            "tasks": wide.index.get_level_values("task").nunique(),
            "reward": wide[f"{rule.name}:q"].mean(),
        }
        for what in SHOWN:
            found = bootstrap_mean(
                wide[f"{rule.name}:{what}"] - wide["sample"],
                groups,
                params.bootstrap,
                chains=chains,
            )
            row |= dict(zip((f"{what}_gain", f"{what}_low", f"{what}_high"), found, strict=True))
        made.append(
            row
            | {
                "relative": row["q_gain"] / (wide["sample"].mean() or float("nan")),
                "verdict": rule_verdict(row),
            }
        )
    return pd.DataFrame(made)


def display_rules(table: pd.DataFrame) -> pd.DataFrame:
    """``rule_table`` rounded, for reading."""
    shown = {
        "rule": table["rule"],
        "reward": [f"{v:.3f}" for v in table["reward"]],
        "relative": [_percent(v) for v in table["relative"]],
    }
    for what, name in SHOWN.items():
        shown[f"gain, {name}"] = [
            f"{m:+.3f} [{lo:+.3f}, {hi:+.3f}]"
            for m, lo, hi in zip(
                *(table[f"{what}_{part}"] for part in ("gain", "low", "high")), strict=True
            )
        ]
    return pd.DataFrame(shown | {"verdict": table["verdict"]})


def display_grid(table: pd.DataFrame) -> pd.DataFrame:
    """``grid.table`` rounded, for reading."""

    def interval(row: dict, name: str) -> str:
        return (
            ""
            if pd.isna(row.get(name, np.nan))
            else f"{row[name]:+.3f} [{row[f'{name}_low']:+.3f}, {row[f'{name}_high']:+.3f}]"
        )

    return pd.DataFrame(
        [
            {
                "axis": row["axis"],
                "choice": row["choice"],
                "pairs": row.get("pairs"),
                "reward": row.get("reward"),
                "gain over one sample": interval(row, "gain"),
                "relative": _percent(row.get("relative", np.nan)),
                "change against the run": interval(row, "change"),
                "failed": row["failed"],
            }
            for row in table.to_dict("records")
        ]
    )


def _percent(value: float) -> str:
    return "" if pd.isna(value) else f"{value:+.0%}"


def candidates(params: Params) -> pd.DataFrame:
    """Over all steps of ``q_n5``: distinct actions among the first n draws, and the best Q less that of the first."""
    steps = [
        [(c["action"], c["q"]) for c in step["candidates"]]
        for record in read_stage(params, "episodes").records("episodes")
        if record["arm"] == numbers.MAIN
        for step in record["trace"]
    ]
    return pd.DataFrame(
        [
            {
                "n": n,
                "steps": len(steps),
                "distinct actions": _mean([len({a for a, _ in s[:n]}) for s in steps]),
                "best Q less the first's (nats)": _mean(
                    [max(q for _, q in s[:n]) - s[0][1] for s in steps]
                ),
            }
            for n in range(1, 6)
        ]
    )


def _score(
    params: Params, wanted: set[tuple[str, tuple[str, ...], str]]
) -> dict[tuple[str, tuple[str, ...], str], float]:
    """Q of actions, each after a path of a training task; a state is rebuilt and scored once."""
    from qvlib.estimators.data import rebuild

    environment, q_model = pipeline.world(params), pipeline.load_q(params)
    tasks = {t.id: t for t in environment.tasks("train")}
    after: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for task, path, action in sorted(wanted):
        after.setdefault((task, path), []).append(action)
    scores = q_model.score(
        [rebuild(environment, tasks[task], path) for task, path in after], list(after.values())
    )
    return {
        (*key, action): q
        for (key, actions), qs in zip(after.items(), scores, strict=True)
        for action, q in zip(actions, qs, strict=True)
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
