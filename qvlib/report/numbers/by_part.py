"""The reward by its parts: which of them each arm reaches."""

from __future__ import annotations

import pandas as pd

from qvlib.pipeline.context import Context
from qvlib.pipeline.params import Params
from qvlib.report.numbers.episodes import in_order, test_episodes


def parts(params: Params, context: Context | None = None) -> dict[str, dict[str, float]]:
    """Arm -> part of the reward -> mean share of it that its test episodes reached.

    Over the tasks that have the part, chains (and shuffles of a control) together. Empty where the
    world has no parts. context: of the run, where there is one already.
    """
    context = context or Context(params)
    tell = context.world.parts
    played = test_episodes(params, "actions")
    if tell is None or "actions" not in played:
        return {}
    tasks = {task.id: task for task in context.environment.tasks("test")}
    known = played[["arm", "task"]].assign(actions=played["actions"].map(tuple))
    walks = dict.fromkeys(zip(known["task"], known["actions"], strict=True))  # many arms share one
    shares = {walk: tell(context.environment, tasks[walk[0]], walk[1]) for walk in walks}
    rows = pd.DataFrame([shares[w] for w in zip(known["task"], known["actions"], strict=True)])
    means = rows.groupby(known["arm"].str.partition("/")[0], sort=False).mean()
    ordered = in_order(means.rename_axis("arm").reset_index(), params.arms())
    return {
        row.pop("arm"): {part: float(share) for part, share in row.items() if share == share}
        for row in ordered.to_dict("records")
    }


def parts_table(found: dict[str, dict[str, float]]) -> pd.DataFrame:
    """``parts`` as a table, one row an arm."""
    return pd.DataFrame([{"arm": arm, **shares} for arm, shares in found.items()])
