"""Choices compared.

Rules for pairs and counts of candidates from what a run has; scoring rules, each with its control.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from qvlib import pipeline
from qvlib.agents.arms import MAIN
from qvlib.agents.twins import TWINS
from qvlib.core.episodes import replay
from qvlib.core.preferences import accuracy, build_pairs
from qvlib.estimators import estimator_of
from qvlib.pipeline.context import Context
from qvlib.pipeline.params import EPISODES, Params
from qvlib.report import numbers
from qvlib.report.formats import difference, with_unit
from qvlib.report.sentences import rule_verdict
from qvlib.report.siblings import held_out_trees
from qvlib.runs.stage import read_stage

NO_RULES = "Not part of this run: set `rule_tasks`, as `params/full.yml` does."
NO_GRID = "Not part of this run: set `grid`, as `params/ablations.yml` does."
TWIN_WORDS = {  # of what is compared with Q in a cell, as tables name it
    "likely": "Q minus the likeliest",
    "oracle": "Q minus the oracle's",
    "foreign": "Q minus foreign",
    "control": "Q minus a control",
}
SCORERS = {"q": "Q", "control": "control", "twin": "no Q"}  # of a scoring rule, as tables name them
MARGINS = (0.0, 0.1, 0.3)
VISITS = {"best_path": (0, 1), "all_nodes": (1, 2)}  # 0: the published rule


def pair_rules(context: Context) -> pd.DataFrame:
    """Pairs by rule and filters, and how the run's Q model orders those of the held-out trees."""
    trees, held = pipeline.load_trees(context.params), held_out_trees(context.params)
    choices = [(rule, *rest) for rule in VISITS for rest in product(VISITS[rule], MARGINS)]
    held_out = [build_pairs(held, rule, margin, visits) for rule, visits, margin in choices]
    q = _score(
        context,
        {(p.task, p.path, a) for pairs in held_out for p in pairs for a in (p.chosen, p.rejected)},
    )
    rows = []
    for (rule, visits, margin), held_pairs in zip(choices, held_out, strict=True):
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
    """Mean reward with its interval for the numbers of candidates that were played.

    n = 1 is ``sample``.
    """
    arms = numbers.arm_table(params).set_index("arm")
    played = [(1, "sample"), (5, "q_n5"), (10, "q_n10")]
    return pd.DataFrame(
        [{"n": n, **arms.loc[arm, ["reward", "reward_low", "reward_high"]]} for n, arm in played]
    )


def rule_table(params: Params) -> pd.DataFrame:
    """One row a scoring rule: mean reward with Q, and three paired gains over one sample.

    Of Q, of its control and of its twin. The control is the same rule with Q models of shuffled
    winners; the twin the same rule without Q. Columns ``<q|control|twin>_gain``, ``_low``,
    ``_high`` with 95 % intervals over groups and chains (a control's of a single chain over its
    shuffles), ``relative`` and ``verdict`` (``sentences.rule_verdict``). Tasks are dev tasks.
    """
    pipeline.try_rules(params)
    rows = numbers.by_task(numbers.load_episodes(params, "rules"))
    means = rows.groupby("arm")["reward"].mean()
    gains = numbers.gain_rows(rows, params.run.bootstrap, "sample").set_index("arm")
    table = []
    for rule in pipeline.rules_of(params):
        row = {
            "rule": rule.name,
            "candidates": params.ablations.rule_n,
            "tasks": rows["task"].nunique(),
            "groups": rows["group"].nunique(),
            "reward": means[f"{rule.name}:q"],
        }
        for scorer in SCORERS:
            told = gains.loc[f"{rule.name}:{scorer}"]
            row |= {f"{scorer}_{part}": float(told[part]) for part in ("gain", "low", "high")}
        row["relative"] = row["q_gain"] / (means["sample"] or float("nan"))
        row["verdict"] = rule_verdict(row)
        table.append(row)
    return pd.DataFrame(table)


def display_rules(table: pd.DataFrame) -> pd.DataFrame:
    """``rule_table`` rounded, for reading."""
    gains = {
        f"gain, {name}": list(
            map(difference, *(table[f"{scorer}_{part}"] for part in ("gain", "low", "high")))
        )
        for scorer, name in SCORERS.items()
    }
    return pd.DataFrame(
        {
            "rule": table["rule"],
            "reward": table["reward"].map("{:.3f}".format),
            **gains,
            "verdict": table["verdict"],
        }
    )


def display_grid(table: pd.DataFrame) -> pd.DataFrame:
    """``grid.table`` rounded, for reading."""

    def change(row: dict, name: str) -> str:
        return difference(*(row.get(f"{name}{end}") for end in ("", "_low", "_high")))

    twins = [twin.name for twin in TWINS if f"minus_{twin.name}" in table]
    return pd.DataFrame(
        [
            {
                "axis": row["axis"],
                "choice": row["choice"],
                "pairs": row.get("pairs"),
                "reward": row.get("reward"),
                "gain over one sample": change(row, "gain"),
                "change against the run": change(row, "change"),
                **{TWIN_WORDS[twin]: change(row, f"minus_{twin}") for twin in twins},
                "failed": row["failed"],
            }
            for row in table.to_dict("records")
        ]
    )


def candidates(params: Params) -> pd.DataFrame:
    """Over all steps of ``q_n5``, by the number n of draws.

    Distinct actions among the first n, and the best Q less that of the first.
    """
    unit = estimator_of(params.q_model.estimator).unit
    steps = [
        [(c["action"], c["q"]) for c in step["candidates"]]
        for record in read_stage(params, f"{EPISODES}{MAIN}").records("episodes")
        for step in record["trace"]
    ]
    return pd.DataFrame(
        [
            {
                "n": n,
                "steps": len(steps),
                "distinct actions": _mean([len({a for a, _ in s[:n]}) for s in steps]),
                with_unit("best Q less the first's", unit): _mean(
                    [max(q for _, q in s[:n]) - s[0][1] for s in steps]
                ),
            }
            for n in range(1, 6)
        ]
    )


def _score(
    context: Context, wanted: set[tuple[str, tuple[str, ...], str]]
) -> dict[tuple[str, tuple[str, ...], str], float]:
    """Q of actions, each after a path of a training task; a state is rebuilt and scored once."""
    environment, q_model = context.environment, context.q_model()
    tasks = {t.id: t for t in environment.tasks("train")}
    after: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for task, path, action in sorted(wanted):
        after.setdefault((task, path), []).append(action)
    scores = q_model.score(
        [replay(environment, tasks[task], path) for task, path in after], list(after.values())
    )
    return {
        (*key, action): q
        for (key, actions), qs in zip(after.items(), scores, strict=True)
        for action, q in zip(actions, qs, strict=True)
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
