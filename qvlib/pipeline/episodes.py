"""Playing arms on tasks: a folder of episodes an arm, so that a new arm replays no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from tqdm.auto import tqdm

from qvlib.agents.arm import Arm, Player
from qvlib.base.executors.processes import slices
from qvlib.core.lockstep import lockstep
from qvlib.core.types import Task
from qvlib.pipeline.context import Context, chains, context_of
from qvlib.pipeline.data import data_folders, split_row
from qvlib.pipeline.params import EPISODES, Params
from qvlib.pipeline.rft import train_rft
from qvlib.pipeline.scored import score_pairs
from qvlib.pipeline.work import part_count, workers
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage, stage_path

Done = Mapping[str, frozenset[str]]
"""Name of an arm -> the tasks that it has played."""


def play(run: Params | Context) -> list[Stage]:
    """Play every arm of each chain on the test tasks; gives the first chain's folders, one an arm.

    ``episodes/<arm>`` holds ``episodes.jsonl``, a line an episode, then ``episodes.parquet``. What
    an arm builds on and only it needs, such as the agent of ``rft``, is made first. Last the pairs
    that the arm ``search`` found are scored, see ``score_pairs``.
    """
    context = context_of(run)
    if any("rft" in arm.needs for arm in context.params.arms()):
        train_rft(context)
    for chain in chains(context):
        play_arms(chain, chain.params.arms())
    score_pairs(context)
    first = context.params.each_seed()[0]
    return [read_stage(first, f"{EPISODES}{arm.name}") for arm in first.arms()]


def play_arms(context: Context, arms: Sequence[Arm]) -> None:
    """Play arms of one chain, those that are not finished, on the test tasks."""
    params = context.params
    missing = [arm for arm in arms if not is_complete(params, f"{EPISODES}{arm.name}")]
    if not missing:
        return
    tasks = context.uses.test
    with ExitStack() as stack:
        stages = {
            arm.name: stack.enter_context(open_stage(params, f"{EPISODES}{arm.name}"))
            for arm in missing
        }
        todo = [arm for arm in missing if not stages[arm.name].complete]
        folder_of = {name: arm.name for arm in todo for name in arm.names(params)}
        done = {name: _played(stages[arm.name], name) for arm in todo for name in arm.names(params)}
        needs = dict.fromkeys(stage for arm in todo for stage in arm.needs)
        names = [arm.name for arm in todo]
        for record in _played_anew(context, needs, arm_players, (names,), tasks, done):
            stages[folder_of[record["arm"]]].append("episodes", record)
        for arm in todo:
            stage = stages[arm.name]
            stage.to_parquet("episodes", ["arm", "task"])
            stage.finish(test=split_row("test", tasks), arms=list(arm.names(params)))


def play_stage(
    context: Context,
    which: str,
    make: Callable[..., dict[str, Player]],
    names: Sequence[str],
    tasks: Sequence[Task],
) -> None:
    """Play the players that ``make(context)`` gives in one stage of its own, on dev tasks."""
    params = context.params
    if is_complete(params, which):
        return
    with open_stage(params, which) as stage:
        if stage.complete:
            return
        done = {name: _played(stage, name) for name in names}
        needs = [s for s in params.upstream(which) if s != "data"]
        for record in _played_anew(context, needs, make, (), tasks, done):
            stage.append("episodes", record)
        stage.to_parquet("episodes", ["arm", "task"])
        stage.finish(test=split_row("dev", tasks), arms=list(names))


def _played(stage: Stage, name: str) -> frozenset[str]:
    records = stage.each("episodes", needs=("arm",))
    return frozenset(record["task"] for record in records if record["arm"] == name)


def _played_anew(
    context: Context,
    needs: Sequence[str],
    make: Callable[..., dict[str, Player]],
    arguments: tuple[Any, ...],
    tasks: Sequence[Task],
    done: Done,
) -> Iterator[dict[str, Any]]:
    """The records of the episodes that are not done, as workers finish them."""
    params = context.params
    finished = sum(len(played) for played in done.values())
    total = len(done) * len(tasks)
    with workers(params) as executor:
        executor.place([*data_folders(params), *(stage_path(params, s) for s in needs)])
        parts = [
            (context, make, arguments, part, done)
            for part in slices(tasks, part_count(executor, params))
        ]
        with tqdm(total=total, initial=finished, desc="playing", unit="episode") as bar:
            for record in executor.stream(_episodes, parts, key=_name):
                yield record
                bar.set_postfix_str(record["arm"], refresh=False)
                bar.update()


def _name(record: Mapping[str, Any]) -> tuple[str, str]:
    return record["arm"], record["task"]


def arm_players(context: Context, names: Sequence[str]) -> dict[str, Player]:
    """The players of these arms and their variants."""
    players: dict[str, Player] = {}
    for name in names:
        players |= context.params.arm(name).players(context)
    return players


def _episodes(
    context: Context,
    make: Callable[..., dict[str, Player]],
    arguments: tuple[Any, ...],
    tasks: Sequence[Task],
    done: Done,
) -> Iterator[dict[str, Any]]:
    """Play what is not done of every player on these tasks; yields the episodes' records."""
    run = context.params.run
    for name, player in make(context, *arguments).items():
        todo = [task for task in tasks if task.id not in done[name]]
        jobs = (player.play(context.environment, task, run.seed) for task in todo)
        for record in lockstep(jobs, player.agent, run.batch_size):
            yield {"arm": name, **record}
