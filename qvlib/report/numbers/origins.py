"""What the numbers of a run are of: its tasks and splits, and the stages that made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from qvlib.agents.arms import BASE
from qvlib.environments import names_of
from qvlib.pipeline.context import Context
from qvlib.pipeline.curriculum import searched
from qvlib.pipeline.data import split_row
from qvlib.pipeline.params import EPISODES, ON_DEV, Params
from qvlib.runs.stage import read_stage


def uses_table(context: Context) -> pd.DataFrame:
    """Which tasks the run uses for what, with a hash of their ids and the number of groups."""
    params, dealt = context.params, context.uses
    rounds = (Context(earlier, context.environment) for earlier in params.each_round())
    tasks = [task for of_round in rounds for task in searched(of_round)]
    demonstrated = {
        "agent": ("demonstrations", dealt.demonstrations),
        "other_agent": ("demonstrations of the second agent", dealt.other_demonstrations),
    }
    used = {
        what: shown
        for stage, (what, shown) in demonstrated.items()
        if shown and "demonstrations" in read_stage(params, stage).facts
    }
    used |= {"search": tasks, "test": dealt.test}
    rows = [split_row(name, of_name) for name, of_name in used.items()]
    table = pd.DataFrame(rows)[["split", "tasks", "groups", "ids"]]
    groups = names_of(context.world, params.world).groups
    return table.set_axis(["used for", "tasks", groups, "hash of ids"], axis=1)


def split_table(params: Params) -> pd.DataFrame:
    """Size and id hash of the splits, and of the test tasks that are played."""
    splits = read_stage(params, "data").facts["splits"]
    played = {**played_tasks(params), "split": "test played"}
    return pd.DataFrame([*splits, played])


def played_tasks(params: Params) -> dict[str, Any]:
    """Size and id hash of the test tasks that are played, the same for every arm."""
    return read_stage(params, f"{EPISODES}{BASE}").facts["test"]


def stage_table(params: Params) -> pd.DataFrame:
    """What made the results: each stage's folder, seconds, commits.

    Of every chain and round of collecting.
    """
    rows = []
    for chain in params.each_seed():
        for made_with, stage in chain.every_stage():
            if stage in ON_DEV:
                continue
            manifest = read_stage(made_with, stage).manifest
            commits = map(_commit, (*manifest.get("earlier", ()), manifest))
            rows.append(
                {
                    "stage": stage,
                    "seed": chain.run.seed,
                    "digest": manifest["digest"],
                    "seconds": manifest["seconds"],
                    "sessions": manifest["sessions"],
                    "finished": manifest["finished"],
                    "commit": ", ".join(dict.fromkeys(commits)),
                }
            )
    return pd.DataFrame(rows)


def _commit(made_by: Mapping[str, Any]) -> str:
    """A commit in short, with a plus where the code differed from it."""
    git = made_by.get("git") or {}
    return git.get("commit", "")[:10] + ("+" if git.get("dirty") else "")
