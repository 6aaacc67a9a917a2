"""A curriculum: which training tasks a round searches, by how hard they are.

From easy to hard, as in Learning to Navigate the Web (arXiv 1812.09195), or the other way round.
How hard a task is, the reward of one episode tells: the demonstrator's for the first round, or in a
world without one and for later rounds that of whom the round is searched with, which the Q model of
the round before guides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qvlib import environments
from qvlib.agents.verdicts import judged_episode
from qvlib.base.executors import Executor
from qvlib.base.executors.processes import slices
from qvlib.core.lockstep import lockstep
from qvlib.core.types import Agent, Task
from qvlib.pipeline.context import Context
from qvlib.pipeline.params import Params
from qvlib.pipeline.work import part_count, write_table
from qvlib.runs.stage import Stage, read_stage

TRIAL = 1  # of its episodes, whose draws are others than those of the search of the task


Searcher = Callable[[Context], Agent]
"""Who a round is searched with."""


def ranked(context: Context, stage: Stage, executor: Executor, searcher: Searcher) -> list[Task]:
    """The tasks of this round, in the order of the split; ``ranked.parquet`` tells of all.

    An episode is played on each task of the pool that no earlier round has searched; the
    ``train_tasks`` of the highest reward are taken, or of the lowest (``hard_first``); among equals
    the first of the split. What was played before the stage was stopped is found again.
    """
    params = context.params
    taken = {task.id for task in _earlier(context)}
    left = [task for task in context.uses.search if task.id not in taken]
    done = stage.done("ranked")
    todo = [task for task in left if task.id not in done]
    parts = [(context, part, searcher) for part in slices(todo, part_count(executor, params))]
    for record in executor.stream(_played, parts, key=lambda record: record["task"]):
        stage.append("ranked", record)
    reward = {
        record["task"]: record["reward"] for record in stage.each("ranked", needs=("reward",))
    }
    chosen = choose(
        [reward[task.id] for task in left],
        params.search.train_tasks,
        params.collecting.curriculum == "easy_first",
    )
    tasks = [left[i] for i in chosen]
    names = {task.id for task in tasks}
    rows = [
        {"task": task.id, "reward": reward[task.id], "searched": task.id in names} for task in left
    ]
    write_table(stage, "ranked", rows)
    return tasks


def choose(rewards: Sequence[float], count: int, easy_first: bool) -> list[int]:
    """The indices, ascending, of the ``count`` highest rewards, or lowest; the first among equals.

    So the order in which a round's tasks are searched leaves no trace.
    """
    sign = -1 if easy_first else 1
    return sorted(sorted(range(len(rewards)), key=lambda i: (sign * rewards[i], i))[:count])


def searched(context: Context) -> list[Task]:
    """The tasks that this round has searched, or is to where there is no curriculum."""
    if not context.params.pool:
        return list(context.uses.search)
    table = read_stage(context.params, "trees").table("ranked")
    names = {*table.loc[table["searched"], "task"]}
    return [task for task in context.uses.search if task.id in names]


def rankings(params: Params) -> Iterator[dict[str, Any]]:
    """The records of the episodes that ranked, of all rounds, each with what it cost."""
    if params.pool:
        for each in params.each_round():
            yield from read_stage(each, "trees").each("ranked")


def _earlier(context: Context) -> Iterator[Task]:
    for params in context.params.each_round()[:-1]:
        yield from searched(Context(params, context.environment))


def _played(
    context: Context, tasks: Sequence[Task], searcher: Searcher
) -> Iterator[dict[str, Any]]:
    """An episode of each task: its record without the actions."""
    run, first = context.params.run, context.params.search.rounds == 1
    known = environments.has_demonstrator(context.world, context.environment)
    agent = context.demonstrator() if first and known else searcher(context)
    jobs = (
        judged_episode(context.environment, task, run.seed, context.judge(), TRIAL)
        for task in tasks
    )
    for record in lockstep(jobs, context.judging(agent), run.batch_size):
        yield {name: value for name, value in record.items() if name != "actions"}
