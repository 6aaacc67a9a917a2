"""What the numbers of a run are of: its tasks and splits, and the stages that made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from qvlib import environments, pipeline
from qvlib.pipeline.params import STAGES, Params
from qvlib.runs.stage import read_stage


def uses_table(params: Params) -> pd.DataFrame:
    """Which tasks the run uses for what, with a hash of their ids and the number of groups."""
    environment = pipeline.world(params)
    dealt = pipeline.uses(params, environment)
    searched = [
        task
        for earlier in all_rounds(params)
        for task in pipeline.uses(earlier, environment).search
    ]
    demonstrated = {
        "agent": ("demonstrations", dealt.demonstrations),
        "other_agent": ("demonstrations of the second agent", dealt.other_demonstrations),
    }
    used = {
        what: tasks
        for stage, (what, tasks) in demonstrated.items()
        if tasks and "demonstrations" in read_stage(params, stage).facts
    }
    used |= {"search": searched, "test": dealt.test}
    table = pd.DataFrame([pipeline.split_row(name, tasks) for name, tasks in used.items()])
    return table.set_axis(
        ["used for", "tasks", environments.words(params).groups, "hash of ids"], axis=1
    )


def split_table(params: Params) -> pd.DataFrame:
    """Size and id hash of the splits, and of the test tasks that are played."""
    splits = read_stage(params, "data").facts["splits"]
    played = {**read_stage(params, "episodes").facts["test"], "split": "test played"}
    return pd.DataFrame([*splits, played])


def stage_table(params: Params) -> pd.DataFrame:
    """What made the results: each stage's folder, seconds, commits.

    Of every chain and round of collecting.
    """
    rows = []
    for chain in params.each_seed():
        earlier = [
            (before, stage)
            for before in all_rounds(chain)[:-1]
            for stage in ("trees", "pairs", "q_model")
        ]
        for made_with, stage in (*earlier, *((chain, stage) for stage in STAGES)):
            if stage in ("rules", "trial") or not params.has(stage):
                continue
            manifest = read_stage(made_with, stage).manifest
            commits = map(_commit, (*manifest.get("earlier", ()), manifest))
            rows.append(
                {
                    "stage": stage,
                    "seed": chain.seed,
                    "digest": manifest["digest"],
                    "seconds": manifest["seconds"],
                    "sessions": manifest["sessions"],
                    "finished": manifest["finished"],
                    "commit": ", ".join(dict.fromkeys(commits)),
                }
            )
    return pd.DataFrame(rows)


def all_rounds(chain: Params) -> list[Params]:
    """The parameters of a chain's rounds of collecting, the first round first."""
    return [*(all_rounds(chain.round_before()) if chain.rounds > 1 else ()), chain]


def _commit(made_by: Mapping[str, Any]) -> str:
    """A commit in short, with a plus where the code differed from it."""
    git = made_by.get("git") or {}
    return git.get("commit", "")[:10] + ("+" if git.get("dirty") else "")
