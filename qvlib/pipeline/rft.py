"""The stage of the baseline RFT: the agent fine-tuned on the best episodes of its own trees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from qvlib.agents.rft import best_episodes
from qvlib.core.episodes import decisions
from qvlib.pipeline.agents import by_size, fine_tuned, must_be_tunable
from qvlib.pipeline.context import Context, chains, context_of
from qvlib.pipeline.data import data_folders
from qvlib.pipeline.pairs import load_trees
from qvlib.pipeline.params import Params
from qvlib.pipeline.work import Made, clear, keep_to_share, processes, workers
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage, stage_path


def train_rft(run: Params | Context) -> Stage:
    """Fine-tune each chain's agent on its trees' best episodes: ``model/``, ``curve.parquet``.

    The episodes are in ``demonstrations.parquet``; the trees are those that make the preference
    pairs, so that both learn from the same search. Gives the first chain's.

    Raises:
        QvlibError: the agent is behind a server, or no tree holds an episode of at least
            ``rft_min_reward``.
    """
    context = context_of(run)
    must_be_tunable(context.params.agent.agent, "rft")
    missing = [each for each in chains(context) if not is_complete(each.params, "rft")]
    if missing:
        with ExitStack() as stack:
            executor = stack.enter_context(workers(context.params))
            stages = {}
            for each in missing:
                stage = stack.enter_context(open_stage(each.params, "rft"))
                if not stage.complete:
                    stages[stage.path.name] = stage, each, stage.path / "training"
                made_before = (stage_path(each.params, s) for s in ("agent", "trees"))
                executor.place([*data_folders(each.params), *made_before])
            is_large = context.params.agent.agent != "small"
            side_by_side = 1 if is_large else min(executor.workers, max(1, len(stages)))
            threads = max(1, processes(context.params) // side_by_side)
            parts = [(each, scratch, threads) for _, each, scratch in stages.values()]
            large = parts if is_large else []
            for made in by_size(executor, _tune, parts, large, key=lambda made: made.part):
                stage, _, scratch = stages[made.part]
                made.keep(stage)
                clear(scratch)
                stage.finish(**made.facts)
    return read_stage(context.params.each_seed()[0], "rft")


def _tune(context: Context, scratch: Path, threads: int) -> Iterator[Made]:
    params, how = context.params, context.params.rft
    keep_to_share(params)
    environment, trees = context.environment, load_trees(params)
    episodes = best_episodes(trees, how.rft_min_reward)
    tasks = {task.id: task for task in environment.tasks("train")}
    pairs = [
        decision
        for record in episodes
        for decision in decisions(environment, tasks[record["task"]], record["actions"])
    ]
    facts = {
        "trees": len(trees),
        "demonstrations": len(episodes),
        "decisions": len(pairs),
        "demonstrator_reward": float(np.mean([record["reward"] for record in episodes])),
    }
    yield from fine_tuned(
        context,
        context.model(),
        pairs,
        stage_path(params, "rft").name,
        scratch,
        "RFT",
        {"demonstrations": episodes},
        facts,
        threads,
        lr=how.rft_lr,
        rate="rft_lr",
        epochs=how.rft_epochs,
        seed=params.run.seed,
    )
