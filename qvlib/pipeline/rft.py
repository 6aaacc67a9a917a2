"""The baseline RFT: the agent fine-tuned on the best episodes of its own search trees, by the code of the warm start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qvlib.base.errors import QvlibError
from qvlib.core.trees import best_trajectory
from qvlib.pipeline.agents import decisions, must_be_tunable
from qvlib.pipeline.common import one_thread, save_model, write_table
from qvlib.pipeline.models import load_model
from qvlib.pipeline.pairs import load_trees
from qvlib.pipeline.params import Params
from qvlib.pipeline.world import world
from qvlib.runs.stage import Stage, open_stage


def train_rft(params: Params) -> Stage:
    """Fine-tune the agent on its trees' best episodes: ``model/``, ``curve.parquet``, and the episodes, ``demonstrations.parquet``.

    The trees are those that make the preference pairs, so that both learn from the same search.

    Raises:
        QvlibError: the agent is behind a server, or no tree holds an episode of at least ``rft_min_reward``.
    """
    from qvlib.agents.fine_tuning import fine_tune, transcripts

    must_be_tunable(params.agent, "rft")
    with open_stage(params, "rft") as stage:
        if stage.complete:
            return stage
        one_thread(params)
        environment, trees = world(params), load_trees(params)
        shown = best_episodes(trees, params.rft_min_reward)
        write_table(stage, "demonstrations", shown)
        tasks = {task.id: task for task in environment.tasks("train")}
        made = list(decisions(environment, [tasks[record["task"]] for record in shown], shown))
        lm = load_model(params)
        rows = list(transcripts(lm, ((d.state, d.action) for d in made)))
        tuned, curve, dropped = fine_tune(
            lm,
            rows,
            lr=params.rft_lr,
            epochs=params.rft_epochs,
            batch=params.warm_batch,
            seed=params.seed,
            lora_rank=params.warm_rank,
            folder=stage.path / "training",
            label="RFT",
        )
        write_table(
            stage,
            "curve",
            [
                {"step": row["step"], "steps": len(curve), "action_loss": row["loss"]}
                for row in curve
            ],
        )
        save_model(stage, tuned.model, tuned.tokenizer)
        stage.finish(
            trees=len(trees),
            demonstrations=len(shown),
            decisions=len(made),
            too_long=dropped,
            demonstrator_reward=float(np.mean([record["reward"] for record in shown])),
        )
    return stage


def best_episodes(trees: Sequence[Mapping[str, Any]], min_reward: float) -> list[dict[str, Any]]:
    """The best episode of each tree that has one of at least ``min_reward``: task, group, reward, actions.

    Raises:
        QvlibError: no tree has one.
    """
    best = [(tree, best_trajectory(tree)) for tree in trees]
    shown = [
        {
            "task": tree["task"],
            "group": tree["group"],
            "reward": found[0],
            "actions": list(found[1]),
        }
        for tree, found in best
        if found is not None and found[0] >= min_reward
    ]
    if not any(found is not None for _, found in best):
        raise QvlibError(
            f"rft: no episode in {len(trees)} trees has ended; raise iterations, max_steps or train_tasks"
        )
    if not shown:
        top = max(found[0] for _, found in best if found is not None)
        raise QvlibError(
            f"rft: the best episode in {len(trees)} trees has a reward of {top:.3f}, under rft_min_reward = {min_reward:g}; "
            "lower it, or raise iterations or train_tasks"
        )
    return shown
