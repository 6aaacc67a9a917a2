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
Make = Callable[[Context, Sequence[str]], dict[str, Player]]
"""(context, names) -> the player of each name."""


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
    names = {f"{EPISODES}{arm.name}": arm.names(context.params) for arm in arms}
    play_stages(context, names, arm_players, "test", context.uses.test)


def play_stages(
    context: Context,
    names: Mapping[str, Sequence[str]],
    make: Make,
    split: str,
    tasks: Sequence[Task],
) -> None:
    """Play the players of several stages side by side, those that are not finished.

    names: stage -> the players whose episodes it holds. split: what the tasks are of.
    """
    params = context.params
    missing = [stage for stage in names if not is_complete(params, stage)]
    if not missing:
        return
    with ExitStack() as stack:
        opened = {stage: stack.enter_context(open_stage(params, stage)) for stage in missing}
        todo = [stage for stage in missing if not opened[stage].complete]
        stage_of = {name: stage for stage in todo for name in names[stage]}
        done = {name: _played(opened[stage], name) for name, stage in stage_of.items()}
        needs = dict.fromkeys(s for stage in todo for s in params.upstream(stage) if s != "data")
        for record in _played_anew(context, needs, make, tasks, done):
            opened[stage_of[record["arm"]]].append("episodes", record)
        for stage in todo:
            opened[stage].to_parquet("episodes", ["arm", "task"])
            opened[stage].finish(test=split_row(split, tasks), arms=list(names[stage]))


def _played(stage: Stage, name: str) -> frozenset[str]:
    records = stage.each("episodes", needs=("arm",))
    return frozenset(record["task"] for record in records if record["arm"] == name)


def _played_anew(
    context: Context,
    needs: Sequence[str],
    make: Make,
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
            (context, make, part, done) for part in slices(tasks, part_count(executor, params))
        ]
        with tqdm(total=total, initial=finished, desc="playing", unit="episode") as bar:
            for record in executor.stream(_episodes, parts, key=_name):
                yield record
                bar.set_postfix_str(record["arm"], refresh=False)
                bar.update()


def _name(record: Mapping[str, Any]) -> tuple[str, str]:
    return record["arm"], record["task"]


def arm_players(context: Context, names: Sequence[str]) -> dict[str, Player]:
    """The players of variants of arms."""
    players: dict[str, Player] = {}
    for name in dict.fromkeys(name.partition("/")[0] for name in names):
        players |= context.params.arm(name).players(context)
    return players


def _episodes(
    context: Context,
    make: Make,
    tasks: Sequence[Task],
    done: Done,
) -> Iterator[dict[str, Any]]:
    """Play what is not done of every player on these tasks; yields the episodes' records."""
    run = context.params.run
    for name, player in make(context, list(done)).items():
        todo = [task for task in tasks if task.id not in done[name]]
        jobs = (player.play(context.environment, task, run.seed) for task in todo)
        for record in lockstep(jobs, player.agent, run.batch_size):
            yield {"arm": name, **record}
