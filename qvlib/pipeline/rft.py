"""The stage of RFT and AgentEvol: the agent fine-tuned on its own best episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from qvlib.agents.rft import best_episodes, with_sampled
from qvlib.agents.verdicts import judged_episode
from qvlib.base.executors import Executor
from qvlib.base.executors.processes import slices
from qvlib.core.episodes import decisions
from qvlib.core.lockstep import lockstep
from qvlib.pipeline.agents import by_size, fine_tuned, must_be_tunable
from qvlib.pipeline.context import Context, chains, context_of
from qvlib.pipeline.data import data_folders
from qvlib.pipeline.pairs import each_tree, load_trees
from qvlib.pipeline.params import Params
from qvlib.pipeline.work import Made, clear, keep_to_share, part_count, processes, workers
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage, stage_path


def train_rft(run: Params | Context) -> Stage:
    """Fine-tune each chain's agent on its trees' best episodes: ``model/``, ``curve.parquet``.

    The episodes are in ``demonstrations.parquet``; the trees are those that make the preference
    pairs, so that both learn from the same search. With ``rft_rounds`` the model of each round,
    a stage of its own, first plays an episode of each of the trees' tasks for the next:
    ``sampled.jsonl``. Gives the first chain's last round.

    Raises:
        QvlibError: the agent is behind a server, or no tree holds an episode of at least
            ``rft_min_reward``.
    """
    context = context_of(run)
    must_be_tunable(context.params.agent.agent, "rft")
    rounds = [chain.params.each_rft_round() for chain in chains(context)]
    for of_chains in zip(*rounds, strict=True):
        _train_round([Context(params, context.environment) for params in of_chains])
    return read_stage(context.params.each_seed()[0], "rft")


def _train_round(of_chains: Sequence[Context]) -> None:
    """A round of every chain."""
    missing = [each for each in of_chains if not is_complete(each.params, "rft")]
    if not missing:
        return
    first = missing[0].params
    with ExitStack() as stack:
        executor = stack.enter_context(workers(first))
        stages = {}
        for each in missing:
            stage = stack.enter_context(open_stage(each.params, "rft"))
            executor.place(_folders(each.params))
            if not stage.complete:
                stages[stage.path.name] = stage, each, stage.path / "training"
        is_large = first.agent.agent != "small"
        side_by_side = 1 if is_large else min(executor.workers, max(1, len(stages)))
        threads = max(1, processes(first) // side_by_side)
        parts = [
            (each, _sampled(each, stage, executor), scratch, threads)
            for stage, each, scratch in stages.values()
        ]
        large = parts if is_large else []
        for made in by_size(executor, _tune, parts, large, key=lambda made: made.part):
            stage, _, scratch = stages[made.part]
            made.keep(stage)
            clear(scratch)
            stage.finish(**made.facts)


def _folders(params: Params) -> list[Path]:
    """The folders of what a round is made of."""
    before = [(params, "agent"), *((each, "trees") for each in params.each_round())]
    before += [(each, "rft") for each in params.each_rft_round()[-2:-1]]
    return [*data_folders(params), *(stage_path(each, stage) for each, stage in before)]


def _sampled(context: Context, stage: Stage, executor: Executor) -> list[dict[str, Any]]:
    """An episode of each of the trees' tasks by the model of the round before; none in the first.

    In the order of the tasks; those played before the stage was stopped are found again.
    """
    if context.params.rft.rft_rounds == 1:
        return []
    tasks = sorted(tree["task"] for tree in each_tree(context.params))
    done = stage.done("sampled")
    todo = [task for task in tasks if task not in done]
    slices_of = slices(todo, part_count(executor, context.params))
    parts = [(context, part) for part in slices_of]
    for record in executor.stream(_play, parts, key=lambda record: record["task"]):
        stage.append("sampled", record)
    return list(stage.each("sampled", ["task"]))


def _play(context: Context, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Episodes of the model of the round before, which no other draws share their keys with."""
    params, environment = context.params, context.environment
    earlier = Context(params.each_rft_round()[-2], environment)
    tasks = {task.id: task for task in environment.tasks("train")}
    agent = context.judging(earlier.sampler("rft"))
    jobs = (
        judged_episode(
            environment, tasks[name], params.run.seed, context.judge(), params.rft.rft_rounds
        )
        for name in names
    )
    yield from lockstep(jobs, agent, params.run.batch_size)


def _tune(
    context: Context, sampled: Sequence[dict[str, Any]], scratch: Path, threads: int
) -> Iterator[Made]:
    params, how = context.params, context.params.rft
    keep_to_share(params)
    environment, trees = context.environment, load_trees(params)
    best = best_episodes(trees, how.rft_min_reward)
    episodes = with_sampled(best, sampled, how.rft_min_reward)
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
    if sampled:
        rewards = [record["reward"] for record in sampled]
        kept = len(episodes) - len(best)
        facts |= {
            "round": how.rft_rounds,
            "sampled": len(sampled),
            "sampled_kept": kept,
            "sampled_reward": float(np.mean(rewards)),
        }
    yield from fine_tuned(
        context,
        context.model(),
        pairs,
        stage_path(params, "rft").name,
        scratch,
        "RFT" if how.rft_rounds == 1 else f"AgentEvol, round {how.rft_rounds}",
        {"demonstrations": episodes},
        facts,
        threads,
        lr=how.rft_lr,
        rate="rft_lr",
        epochs=how.rft_epochs,
        seed=params.run.seed,
    )
