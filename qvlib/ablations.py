"""Choices that can be compared without training again: other rules on the same trees, counts from the same episodes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from . import pipeline, report
from .params import Params
from .preferences import accuracy, build_pairs
from .runs import read_stage
from .siblings import held_out_trees

MARGINS, VISITS = (0.0, 0.1, 0.3), (1, 2)


def pair_rules(params: Params) -> pd.DataFrame:
    """Pairs by rule and filters, and how the run's Q model orders those of the held-out trees."""
    environment, q_model = pipeline.world(params), pipeline.load_q(params)
    trees, held = read_stage(params, "trees").records("trees"), held_out_trees(params)
    tasks = {t.id: t for t in environment.tasks("train")}
    rows = []
    for rule, visits, margin in product(("best_path", "all_nodes"), VISITS, MARGINS):
        pairs, seen = build_pairs(trees, rule, margin, visits), build_pairs(held, rule, margin, visits)
        rows.append({"rule": rule, "min visits": visits, "min margin": margin, "pairs": len(pairs),
                     "pairs a tree": len(pairs) / len(trees), "mean margin": _mean([p.margin for p in pairs]),
                     "mean depth": _mean([p.depth for p in pairs]), "held-out pairs": len(seen),
                     "ordered rightly": _ordered(environment, q_model, tasks, seen)})
    return pd.DataFrame(rows)


def reward_by_n(params: Params) -> pd.DataFrame:
    """Mean reward with its interval for the numbers of candidates that were played; n = 1 is ``sample``."""
    arms = report.arm_table(params).set_index("arm")
    played = [(1, "sample"), (5, "q_n5"), (10, "q_n10")]
    return pd.DataFrame([{"n": n, **arms.loc[arm, ["reward", "reward_low", "reward_high"]]} for n, arm in played])


def candidates(params: Params) -> pd.DataFrame:
    """Over all steps of ``q_n5``: distinct actions among the first n draws, and the best Q less that of the first."""
    steps = [[(c["action"], c["q"]) for c in step["candidates"]] for record in read_stage(params, "episodes").records("episodes")
             if record["arm"] == report.MAIN for step in record["trace"]]
    return pd.DataFrame([{
        "n": n, "steps": len(steps), "distinct actions": _mean([len({a for a, _ in s[:n]}) for s in steps]),
        "best Q less the first's (nats)": _mean([max(q for _, q in s[:n]) - s[0][1] for s in steps])} for n in range(1, 6)])


def _ordered(environment, q_model, tasks, pairs) -> float:
    """Share of pairs whose chosen action has the higher Q."""
    from .dpo import rebuild

    states = [rebuild(environment, tasks[p.task], p.path) for p in pairs]
    scores = np.array(q_model.score(states, [[p.chosen, p.rejected] for p in pairs])).reshape(-1, 2)
    return accuracy(scores[:, 0], scores[:, 1])


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
