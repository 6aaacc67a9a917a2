"""How a Q model's scores of sibling actions agree with the values that the search gave them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from qvlib import pipeline
from qvlib.core.episodes import replay
from qvlib.core.preferences import is_held_out
from qvlib.core.trees import children_by_parent, paths
from qvlib.core.types import Environment, QModel, State
from qvlib.environments.world import verb
from qvlib.pipeline.context import Context
from qvlib.pipeline.params import Params
from qvlib.report.intervals import share_interval

MOST_STATES = 400  # that are scored: enough to see how Q agrees


def held_out_trees(params: Params) -> list[dict[str, Any]]:
    """The trees, of all rounds, whose pairs the Q model was not trained on, sorted by task."""
    trees = pipeline.load_trees(params)
    return [t for t in trees if is_held_out(t["task"], params.pairs.heldout_share, params.run.seed)]


def score(
    environment: Environment,
    q_model: QModel,
    trees: Sequence[Mapping[str, Any]],
    min_visits: int,
    kind: Callable[[State, str], str] = verb,
) -> pd.DataFrame:
    """Sibling actions with at least ``min_visits`` visits: their value and Q.

    Each also less their state's mean, since Q compares actions of one state only. One row an
    action: task, node (the parent), depth, action, kind, visits, value, q, value_centred,
    q_centred. kind: what the world calls an action in its state.
    """
    tasks = {t.id: t for split in ("train", "dev", "test") for t in environment.tasks(split)}
    states, groups = [], []
    for tree in trees:
        path = paths(tree)
        for parent, children in children_by_parent(tree).items():
            siblings = [child for child in children if child["visits"] >= max(1, min_visits)]
            if len(siblings) > 1 and len(groups) < MOST_STATES:
                states.append(replay(environment, tasks[tree["task"]], path[parent]))
                groups.append((tree["task"], parent, siblings))
    scores = q_model.score(states, [[s["action"] for s in siblings] for _, _, siblings in groups])
    columns = ["task", "node", "depth", "action", "kind", "visits", "value", "q"]
    table = pd.DataFrame(
        [
            (*of, s["depth"], s["action"], kind(state, s["action"]), s["visits"], s["value"], q)
            for (*of, siblings), state, qs in zip(groups, states, scores, strict=True)
            for s, q in zip(siblings, qs, strict=True)
        ],
        columns=columns,
    )
    for column in ("value", "q"):
        table[f"{column}_centred"] = table[column] - table.groupby(["task", "node"])[
            column
        ].transform("mean")
    return table


def agreement(siblings: pd.DataFrame) -> dict[str, float]:
    """How often Q orders pairs of siblings as the search did, over all whose values differ.

    ``pairs`` of so many ``tasks``; ``agreement`` with its 95 % interval over tasks, ``low`` and
    ``high``; nan of none.
    """
    right: list[float] = []
    tasks: list[str] = []
    for (task, _), part in siblings.groupby(["task", "node"]):
        value, q = part["value"].to_numpy(), part["q"].to_numpy()
        for i in range(len(part)):
            apart = np.abs(value - value[i]) > 1e-12
            apart[: i + 1] = False
            same = np.sign(q - q[i]) == np.sign(value - value[i])
            right += list((same + 0.5 * (q == q[i]))[apart])
            tasks += [task] * int(apart.sum())
    share, low, high = share_interval(right, tasks) if right else (float("nan"),) * 3
    found = {"pairs": len(right), "tasks": len(set(tasks))}
    return found | {"agreement": share, "low": low, "high": high}


def score_held_out(context: Context) -> pd.DataFrame:
    """``score`` of the run's Q model on the trees that were held out of its training."""
    trees = held_out_trees(context.params)
    least = context.params.pairs.min_visits
    return score(context.environment, context.q_model(), trees, least, context.world.kind)
